"""What the two daemons' plugins share: the command-line options, and which composition root a process gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import msgspec
from twisted.application.service import IService
from twisted.logger import Logger

from nitroproxy.config.load import Configuration
from nitroproxy.config.options import DaemonOptions
from nitroproxy.daemon.alone import Alone
from nitroproxy.daemon.place import exit_with
from nitroproxy.daemon.reload import Unloadable
from nitroproxy.daemon.role import Role, Stages
from nitroproxy.workers.channel import first_string
from nitroproxy.workers.supervisor_daemon import SupervisorDaemon
from nitroproxy.workers.worker import CHANNEL, WorkerStart, WrongVersion
from nitroproxy.workers.worker_daemon import WorkerDaemon, configuration_of

_log: Final = Logger()


class ProcessOptions(DaemonOptions):
    """The options of a daemon, of which one is for the processes that the daemon starts itself.

    :ivar worker: what the supervisor gave this worker; None in a process that is no worker.
    """

    #: The daemon's name for messages.
    name: ClassVar[str]
    internal = frozenset({"worker"})

    optParameters: ClassVar = [
        ["worker", None, None, "Internal: the daemon starts its own workers with it, by number."],
    ]

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(environ)
        self.worker: WorkerStart | None = None

    def load(self) -> Configuration:
        """See `DaemonOptions.load`; a worker has what the supervisor has in force."""
        if not self["worker"]:
            return super().load()
        if self.worker is None:
            number = self["worker"]
            try:
                self.worker = WorkerStart.read(first_string(CHANNEL))
            except WrongVersion as error:
                exit_with(f"{self.name}: worker {number}: {error}")
            except EOFError as error:
                exit_with(f"{self.name}: worker {number}: {error}")
            except OSError:
                exit_with(f"{self.name}: --worker is internal to the daemon: it has no supervisor")
        try:
            return configuration_of(self.worker.configuration)
        except msgspec.DecodeError as error:
            exit_with(f"{self.name}: worker {self['worker']}: the supervisor's configuration cannot be read: {error}")


def service_of(role: Role, reactor: Any, options: ProcessOptions) -> IService:
    """The process's service, ready to start: the whole daemon, its supervisor or a worker.

    :raises nitroproxy.daemon.place.Unable: after a line that says why the daemon cannot run.
    """
    try:
        if options.worker is not None:
            return WorkerDaemon(role, reactor, options, int(options["worker"]), options.worker).daemon
        settings = options.configuration.settings
        role.check(settings)
        output = options.open_log()
        if not settings.tls.verify_certificates:
            _log.warn("tls.verify_certificates is off: upstream certificates are NOT verified", event="not_verifying")
        several = role.processes(settings) > 1
        root: Callable[..., Alone | SupervisorDaemon] = SupervisorDaemon if several else Alone
        return root(role, reactor, options, _servers(role, reactor, options), output).daemon
    except Unloadable as error:
        exit_with(f"{role.name}: {error}")


def _servers(role: Role, reactor: Any, options: ProcessOptions) -> Stages:
    try:
        return role.servers(reactor, options.configuration.settings)
    except OSError as error:
        exit_with(f"{role.name}: transport.directory: {error.filename}: {error.strerror}")
