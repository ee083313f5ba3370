"""The composition root of a daemon that is one process, on the host or in the enclave."""

from __future__ import annotations

import os
import time
from typing import Any

from twisted.internet.defer import Deferred, succeed

from nitroproxy.config.load import Configuration
from nitroproxy.config.options import DaemonOptions
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.reload import Reloader
from nitroproxy.daemon.role import Commit, Rest, Role, Stages, asked_here, places_of, prepare_all
from nitroproxy.daemon.service import Daemon
from nitroproxy.daemon.systemd import Notifier


class Alone:
    """Serves, takes signals, and has what the daemon has once.

    :param servers: from *role*, made by the caller, which reports what prevents them.
    :param output: the descriptor to log to.
    :ivar daemon: the service that twistd runs.
    :raises Unloadable: when a file of the configuration cannot be used.
    """

    def __init__(self, role: Role, reactor: Any, options: DaemonOptions, servers: Stages, output: int) -> None:
        settings = options.configuration.settings
        process = role.process(reactor, settings, output, None)
        once = role.once(process, settings, Rest(None, self._ask_serving, self._in_force))
        serving = role.serving(process, settings, None, asked_here(once.answerers))
        serving.take(once.shared)

        def take(shared: bytes) -> Deferred[None]:
            serving.take(shared)
            return succeed(None)

        once.watch(take)
        self._serving = serving
        self._parts = serving, once, process
        reloader = self._reloader = Reloader(options.configuration, options.load, self._prepare, time.time)
        process.instruments.metrics.sources.append(reloader.collect)
        self.daemon = Daemon(
            reactor,
            [*places_of(servers, serving), list(once.places)],
            process.instruments,
            Notifier(os.environ),
            reloader.drain_timeout,
            [*serving.at_end, *once.at_end, *process.at_end],
            reloader,
            at_stop=process.drain,
            delay=lambda: role.drain_delay(reloader.configuration.settings),
        )

    async def _ask_serving(self, what: str) -> list[Any]:
        return [await self._serving.answerers[what](None)]

    def _in_force(self) -> Configuration:
        return self._reloader.configuration

    def _prepare(self, settings: Settings) -> Commit:
        return prepare_all(self._parts, settings)
