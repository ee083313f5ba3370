"""The host daemon's composition root: `twistd nitroproxy-host`. Reads the configuration, builds the parts, joins
them.

One process does everything, or with ``host_proxy.processes`` a supervisor (`host.crew`) holds the sockets and takes
the enclave's log, and its workers (`host.worker`) serve.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Final

import msgspec
from prometheus_client.core import Metric
from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from nitroproxy.config.load import Configuration
from nitroproxy.config.options import DaemonOptions
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.place import ListeningPlace, exit_with
from nitroproxy.daemon.reload import Reloader
from nitroproxy.daemon.service import Daemon
from nitroproxy.daemon.systemd import Notifier
from nitroproxy.host.components import GATEWAY, RELAY, EnclaveLog, Proxy, instruments_of, servers
from nitroproxy.host.own_addresses import own_addresses
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.trace import ViaName
from nitroproxy.proxy.transport import factory_of
from nitroproxy.telemetry.totals import of_worker
from nitroproxy.workers.balance import Share, shared_memory
from nitroproxy.workers.channel import Channel, first_string
from nitroproxy.workers.shared_socket import InheritedEndpoint, Shared
from nitroproxy.workers.spawn import Spawner
from nitroproxy.workers.supervisor import SharedPlace, Supervisor
from nitroproxy.workers.worker import CHANNEL, FIRST_SOCKET, MEMORY, AllWorkers, Worker, WorkerStart

_log: Final = Logger()


class Options(DaemonOptions):
    """Options of `twistd nitroproxy-host`."""

    longdesc = "The host side of nitroproxy: the HTTP gateway and the enclave's egress relay."
    internal = frozenset({"worker"})

    optParameters: ClassVar = [
        ["worker", None, None, "For the daemon itself, which starts its workers so: which of them to be."],
    ]

    #: What the supervisor told this worker.
    orders: WorkerStart | None = None

    def load(self) -> Configuration:
        """See `DaemonOptions.load`; a worker's is what the supervisor has in force."""
        if not self["worker"]:
            return super().load()
        if self.orders is None:
            try:
                self.orders = WorkerStart.read(first_string(CHANNEL))
            except (OSError, EOFError) as error:
                exit_with(f"nitroproxy-host: --worker is for the daemon itself: {error}")
        return _from_json(self.orders.configuration)


def _from_json(data: bytes) -> Configuration:
    return msgspec.json.decode(data, type=Configuration)


def makeService(options: Options) -> IService:
    """The host daemon, ready to start."""
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    if options.orders is not None:
        return _worker(reactor, options, options.orders)
    try:
        own_addresses()  # The address guard asks again and again; but without them no daemon should begin.
    except OSError as error:
        exit_with(f"nitroproxy-host: this machine's own addresses cannot be read: {error}")
    settings = options.configuration.settings
    output = options.open_log()
    if not settings.tls.verify_certificates:
        _log.warn("tls.verify_certificates is off: upstream certificates are NOT verified", event="not_verifying")
    try:
        if settings.host_proxy.processes > 1:
            return _supervisor(reactor, options, output)
        return _alone(reactor, options, output)
    except OSError as error:
        exit_with(f"nitroproxy-host: transport.directory: {error.filename}: {error.strerror}")


def _alone(reactor: Any, options: Options, output: int) -> Daemon:
    """The daemon as one process."""
    configuration = options.configuration
    settings = configuration.settings
    instruments = instruments_of(reactor, settings, output)
    host = Proxy(reactor, configuration, instruments)
    logbook = EnclaveLog(reactor, instruments, host.deadlines, settings)
    gateway, relay = servers(reactor, settings)

    def prepare(new: Settings) -> Callable[[], None]:
        commit = host.prepare(new)

        def commit_all() -> None:
            commit()
            logbook.limit(new)

        return commit_all

    daemon = Daemon(
        reactor,
        [[ListeningPlace(*gateway, host.gateway)], [ListeningPlace(*relay, host.relay)], *logbook.stages(settings)],
        instruments,
        Notifier(os.environ),
        lambda: host.settings.limits.drain_timeout,
        host.at_end,
    )
    daemon.reload = reloader = Reloader(configuration, options.load, prepare, time.time)
    instruments.metrics.sources.append(reloader.collect)
    return daemon


def _supervisor(reactor: Any, options: Options, output: int) -> Daemon:
    """The first of several processes: it holds the sockets, takes the enclave's log and looks after the workers."""
    in_force = options.configuration
    settings = in_force.settings
    instruments = instruments_of(reactor, settings, output)
    deadlines = Deadlines(reactor)
    logbook = EnclaveLog(reactor, instruments, deadlines, settings)
    hops = zip(servers(reactor, settings), (GATEWAY, RELAY), strict=True)
    sockets = [Shared(*server, hop) for server, hop in hops]
    count, tag = settings.host_proxy.processes, os.urandom(16).hex()
    memory = shared_memory(count, len(sockets))

    def orders() -> WorkerStart:
        return WorkerStart(msgspec.json.encode(in_force), count, [one.name for one in sockets], tag)

    launcher = Spawner(reactor, os.environ, output, lambda: [memory, *(one.descriptor for one in sockets)])
    crew = Supervisor(reactor, launcher, count, orders, instruments.metrics)

    def prepare(new: Settings) -> Callable[[], None]:
        def commit() -> None:
            nonlocal in_force
            in_force = replace(in_force, settings=new)
            logbook.limit(new)
            instruments.log.set_level(new.logging.level)

        return commit

    reloader = Reloader(in_force, options.load, prepare, time.time)

    async def reload() -> bool:
        return reloader() and await crew.reload(msgspec.json.encode(in_force))

    daemon = Daemon(
        reactor,
        [*([SharedPlace(one, crew, number)] for number, one in enumerate(sockets)), *logbook.stages(settings)],
        instruments,
        Notifier(os.environ),
        lambda: in_force.settings.limits.drain_timeout,
        [crew.end, deadlines.stop],
        at_start=crew.start,
        about=f"{count} workers, ",
    )
    daemon.reload = lambda: Deferred.fromCoroutine(reload())
    instruments.metrics.sources.append(reloader.collect)
    return daemon


def _worker(reactor: Any, options: Options, orders: WorkerStart) -> Daemon:
    """One of several processes: it serves, and does what the supervisor says."""
    configuration = newest = options.configuration
    number = int(options["worker"])
    instruments = instruments_of(reactor, configuration.settings, options.open_log(), number)
    ending = False

    def supervisor_gone() -> None:
        if not ending:
            # There is nobody to answer to, and nobody who would ever end this process.
            _log.critical("the supervisor has gone: ending at once", event="supervisor_gone")
            instruments.end()
            os._exit(1)

    def reload(data: bytes) -> bool:
        nonlocal newest
        newest = _from_json(data)
        return reloader()

    def end() -> None:
        nonlocal ending
        ending = True
        reactor.stop()

    answerers: dict[str, Any] = {}
    channel = Channel(reactor, answerers, supervisor_gone)

    def own() -> list[Metric]:
        return of_worker(str(number), instruments.metrics.collect())

    whole = AllWorkers(channel, own)
    host = Proxy(reactor, configuration, instruments, whole)
    places = []
    for index, factory in enumerate((host.gateway, host.relay)):
        factory.via_name = ViaName(factory.hop, bytes.fromhex(orders.tag))
        share = Share(MEMORY, orders.count, index, number - 1, partial(len, factory.connections))
        endpoint = InheritedEndpoint(reactor, FIRST_SOCKET + index, share.is_taken)
        places.append(ListeningPlace(endpoint, orders.places[index], factory))
    reloader = Reloader(configuration, lambda: newest, host.prepare, time.time)
    instruments.metrics.sources.append(reloader.collect)
    worker = Worker(places, own, reload, end)
    answerers.update(worker.answerers)
    os.set_blocking(CHANNEL, False)
    reactor.adoptStreamConnection(CHANNEL, socket.AF_UNIX, factory_of(lambda: channel))
    os.close(CHANNEL)
    daemon = Daemon(
        reactor,
        [[place] for place in places],
        instruments,
        Notifier({}),
        lambda: host.settings.limits.drain_timeout,
        host.at_end,
        obeys=False,
    )
    return daemon
