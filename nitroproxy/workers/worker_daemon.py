"""The composition root of a worker: it serves, and does what the supervisor asks."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from nitroproxy.config.load import Configuration, ConfigurationError
from nitroproxy.config.options import DaemonOptions
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.place import ListeningPlace
from nitroproxy.daemon.reload import Reloader, Unloadable
from nitroproxy.daemon.role import Commit, Role, prepare_all
from nitroproxy.daemon.service import Daemon
from nitroproxy.daemon.systemd import Notifier
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.trace import ViaName
from nitroproxy.proxy.transport import factory_of
from nitroproxy.workers.balance import Share
from nitroproxy.workers.channel import Channel
from nitroproxy.workers.shared_socket import InheritedEndpoint
from nitroproxy.workers.worker import CHANNEL, FIRST_SOCKET, MEMORY, AllWorkers, Worker, WorkerStart

_log: Final = Logger()


def configuration_of(data: bytes) -> Configuration:
    """The configuration that the supervisor has sent.

    :raises msgspec.DecodeError: when this version cannot read it.
    """
    return msgspec.json.decode(data, type=Configuration)


class WorkerDaemon:
    """See the module.

    :param number: which worker this is, from 1 on.
    :param start: what the supervisor gave it.
    :ivar daemon: the service that twistd runs.
    :raises Unloadable: when a file of the configuration cannot be used.
    """

    def __init__(self, role: Role, reactor: Any, options: DaemonOptions, number: int, start: WorkerStart) -> None:
        self._reactor = reactor
        self._newest = options.configuration
        self._ending = False
        settings = self._newest.settings
        process = role.process(reactor, settings, options.open_log(), number)
        self._instruments = process.instruments
        metrics = process.instruments.metrics
        whole = AllWorkers(self._ask, metrics)
        serving = role.serving(process, settings, whole, whole.ask_once)
        serving.take(start.shared)
        self._parts = serving, process
        self._reloader = Reloader(self._newest, lambda: self._newest, self._prepare, time.time)
        metrics.sources.append(self._reloader.collect)
        places = [_place(reactor, start, number, *indexed) for indexed in enumerate(serving.factories)]
        worker = Worker(
            places,
            metrics.collect,
            self._prepare_reload,
            serving.close_idle,
            serving.take,
            self._end,
            serving.answerers,
        )
        self._channel = Channel(reactor, worker.answerers, self._supervisor_gone)
        os.set_blocking(CHANNEL, False)
        reactor.adoptStreamConnection(CHANNEL, socket.AF_UNIX, factory_of(lambda: self._channel))
        os.close(CHANNEL)
        self.daemon = Daemon(
            reactor,
            [places],
            process.instruments,
            Notifier({}),
            self._reloader.drain_timeout,
            [*serving.at_end, *process.at_end],
            self._reloader,
            takes_signals=False,
        )

    def _ask(self, what: str, about: object, timeout: float) -> Deferred[Any]:
        return self._channel.ask(what, about, timeout)

    def _prepare(self, settings: Settings) -> Commit:
        return prepare_all(self._parts, settings)

    def _prepare_reload(self, data: bytes) -> Callable[[], None]:
        self._newest = configuration_of(data)
        try:
            return self._reloader.prepare().commit
        except ConfigurationError as error:
            raise Unloadable("; ".join(error.problems)) from error

    def _end(self) -> None:
        self._ending = True
        self._reactor.stop()

    def _supervisor_gone(self) -> None:
        if not self._ending:
            # No process is left that would ever end this one.
            _log.critical("the supervisor has gone: ending at once", event="supervisor_gone")
            self._instruments.end()
            os._exit(1)


def _place(reactor: Any, start: WorkerStart, number: int, index: int, factory: DownstreamFactory) -> ListeningPlace:
    """The place of that index, at which this worker accepts for *factory*."""
    factory.via_name = ViaName(factory.hop, start.via_key)
    share = Share(MEMORY, start.count, index, number - 1, partial(len, factory.connections))
    endpoint = InheritedEndpoint(reactor, FIRST_SOCKET + index, share.is_taken)
    return ListeningPlace(endpoint, start.places[index], factory, shared=True)
