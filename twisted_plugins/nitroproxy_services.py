"""`twistd nitroproxy-host`, `nitroproxy-enclave` and `nitroproxy-credentials`: names only, so that listing plugins
imports nothing."""

from twisted.application.service import ServiceMaker

host = ServiceMaker(
    "nitroproxy host daemon",
    "nitroproxy.host.service",
    "The host's side of nitroproxy: HTTP gateway and egress relay.",
    "nitroproxy-host",
)
enclave = ServiceMaker(
    "nitroproxy enclave daemon",
    "nitroproxy.enclave.service",
    "The enclave's side of nitroproxy: the proxy whose TLS starts inside the enclave.",
    "nitroproxy-enclave",
)
credentials = ServiceMaker(
    "nitroproxy credentials daemon",
    "nitroproxy.credentials.service",
    "The instance role's credentials for the enclave: asks the metadata service, serves a UNIX socket.",
    "nitroproxy-credentials",
)
