"""The enclave daemon's plugin: `twistd nitroproxy-enclave`. The composition roots (`nitroproxy.workers.start`) are
those of both daemons; what this one is made of is in `nitroproxy.enclave.components`."""

from __future__ import annotations

from twisted.application.service import IService

from nitroproxy.enclave.components import EnclaveRole
from nitroproxy.enclave.once import HOP
from nitroproxy.workers.start import ProcessOptions, service_of


class Options(ProcessOptions):
    """Options of `twistd nitroproxy-enclave`."""

    longdesc = "The enclave side of nitroproxy: the proxy whose TLS starts inside the enclave."
    reads_tls_files = True
    name = HOP


def makeService(options: Options) -> IService:
    """The process's service, ready to start."""
    from twisted.internet import reactor

    return service_of(EnclaveRole(), reactor, options)
