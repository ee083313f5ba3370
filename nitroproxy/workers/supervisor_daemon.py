"""The composition root of the first of several processes: it holds the sockets, has what the daemon has once, takes
signals and the service manager's attention, and supervises the workers."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from nitroproxy.config.load import Configuration, ConfigurationError
from nitroproxy.config.options import DaemonOptions
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.reload import Reloader
from nitroproxy.daemon.role import Commit, Rest, Role, Stages, prepare_all
from nitroproxy.daemon.service import Daemon
from nitroproxy.daemon.systemd import Notifier
from nitroproxy.telemetry.metrics import SUPERVISOR
from nitroproxy.workers.balance import SharedCounts
from nitroproxy.workers.shared_place import SharedPlace
from nitroproxy.workers.shared_socket import SharedSocket
from nitroproxy.workers.spawn import Spawner
from nitroproxy.workers.supervisor import Supervised, Supervisor
from nitroproxy.workers.worker import WorkerStart


class SupervisorDaemon:
    """See the module. Parameters as of `nitroproxy.daemon.alone.Alone`.

    :ivar daemon: the service that twistd runs.
    """

    def __init__(self, role: Role, reactor: Any, options: DaemonOptions, servers: Stages, output: int) -> None:
        settings = options.configuration.settings
        process = role.process(reactor, settings, output, SUPERVISOR)
        rest = Rest(Supervised(lambda: self._supervisor), self._ask_serving, lambda: self._reloader.configuration)
        once = self._once = role.once(process, settings, rest)
        self._parts = once, process
        self._reloader = Reloader(options.configuration, options.load, self._prepare, time.time)
        process.instruments.metrics.sources.append(self._reloader.collect)
        stages = [[SharedSocket(server) for server in stage] for stage in servers]
        self._sockets = [socket for stage in stages for socket in stage]
        self._count = role.processes(settings)
        self._counts = SharedCounts(self._count, len(self._sockets))
        self._via_key = os.urandom(16)
        self._supervisor = Supervisor(
            reactor,
            role.name,
            Spawner(reactor, os.environ, role.name, output, self._inherited),
            self._count,
            self._start,
            process.instruments.metrics,
            self._counts.forget,
            self._reloader.obstacle,
            self._give_up,
            once.answerers,
        )
        once.watch(self._supervisor.share)
        numbered = {socket: number for number, socket in enumerate(self._sockets)}
        shared = [[SharedPlace(socket, self._supervisor, numbered[socket]) for socket in stage] for stage in stages]
        self.daemon = Daemon(
            reactor,
            [*shared, list(once.places)],
            process.instruments,
            Notifier(os.environ),
            self._reloader.drain_timeout,
            [self._supervisor.end, *once.at_end, *process.at_end],
            self._reload,
            at_start=self._supervisor.start,
            at_stop=process.drain,
            delay=lambda: role.drain_delay(self._reloader.configuration.settings),
            about=f"{self._count} workers, ",
        )

    def _inherited(self) -> list[int]:
        return [self._counts.descriptor, *(socket.descriptor for socket in self._sockets)]

    def _start(self) -> WorkerStart:
        configuration, names = _encode(self._reloader.configuration), [socket.name for socket in self._sockets]
        return WorkerStart(configuration, self._count, names, self._via_key, self._once.shared)

    async def _ask_serving(self, what: str) -> list[Any]:
        return await self._supervisor.ask_serving(what)

    def _prepare(self, settings: Settings) -> Commit:
        return prepare_all(self._parts, settings)

    def _reload(self) -> Deferred[bool]:
        return Deferred.fromCoroutine(self._reload_all())

    async def _reload_all(self) -> bool:
        """The supervisor examines the file, then every worker; then all put it in force, or none."""
        try:
            prepared = self._reloader.prepare()
        except ConfigurationError as error:
            return self._reloader.failed(error.problems)
        problems = await self._supervisor.reload(_encode(prepared.configuration), prepared.commit)
        return not problems or self._reloader.failed(problems)

    def _give_up(self) -> None:
        self.daemon.give_up()


def _encode(configuration: Configuration) -> bytes:
    """*configuration* as workers are given it."""
    return msgspec.json.encode(configuration)
