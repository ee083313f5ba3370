"""The credentials of the instance's role, for the application in the enclave.

The instance metadata service (IMDS) has them, and the daemons that take bytes from enclave and internet must never
reach it. So a daemon of its own asks for them, and serves nothing else: `service` is its plugin and `components` what
the composition roots run. `imds` speaks to the metadata service, `keeper` keeps what it gave and asks again in time,
`pages` serves it at a UNIX socket to the host daemon, which passes it on to the configured enclave
(`nitroproxy.host.credentials`), where an application gets it with its token (`nitroproxy.enclave.credentials`).
`document` is the form that all of them read and write; it is pure.
"""
