"""The credentials daemon's plugin: `twistd nitroproxy-credentials`. The composition roots (`nitroproxy.workers.start`)
are those of all daemons; what this one is made of is in `nitroproxy.credentials.components`."""

from __future__ import annotations

from twisted.application.service import IService

from nitroproxy.credentials.components import CredentialsRole
from nitroproxy.credentials.pages import HOP
from nitroproxy.workers.start import ProcessOptions, service_of


class Options(ProcessOptions):
    """Options of `twistd nitroproxy-credentials`."""

    longdesc = "The instance role's credentials for the enclave: asks the metadata service, serves a UNIX socket."
    name = HOP


def makeService(options: Options) -> IService:
    """The process's service, ready to start."""
    from twisted.internet import reactor

    return service_of(CredentialsRole(), reactor, options)
