"""The host daemon's plugin: `twistd nitroproxy-host`. The composition roots (`nitroproxy.workers.start`) are those of
both daemons; what this one is made of is in `nitroproxy.host.components`."""

from __future__ import annotations

from twisted.application.service import IService

from nitroproxy.host.components import GATEWAY, HostRole
from nitroproxy.workers.start import ProcessOptions, service_of


class Options(ProcessOptions):
    """Options of `twistd nitroproxy-host`."""

    longdesc = "The host side of nitroproxy: the HTTP gateway and the enclave's egress relay."
    name = GATEWAY


def makeService(options: Options) -> IService:
    """The process's service, ready to start."""
    from twisted.internet import reactor

    return service_of(HostRole(), reactor, options)
