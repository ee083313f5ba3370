"""The enclave daemon's composition root: `twistd nitroproxy-enclave`. Reads the configuration, builds the parts, joins
them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from twisted.application.service import IService
from twisted.logger import Logger

from nitroproxy import __version__
from nitroproxy.config.load import Configuration
from nitroproxy.config.options import DaemonOptions, tls_settings
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.place import ListeningPlace, exit_with
from nitroproxy.daemon.reload import Reloader, Unloadable
from nitroproxy.daemon.service import Daemon
from nitroproxy.daemon.systemd import Notifier
from nitroproxy.daemon.wiring import (
    ENCLAVE_PATIENCE,
    HOP_FIELDS,
    OnlyFrom,
    enclave_places,
    hop_client,
    hop_server,
    listener_settings,
    pool_settings,
    tcp_server,
)
from nitroproxy.enclave.dialer import Dialer
from nitroproxy.enclave.health import HealthOfEnclave
from nitroproxy.enclave.router import EnclaveRouter, enclave_site
from nitroproxy.errors import Kind
from nitroproxy.policy import Policy
from nitroproxy.proxy.connect_endpoint import HopEndpoint
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.places import Places
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.exposition import own_metrics
from nitroproxy.telemetry.instruments import Instruments
from nitroproxy.telemetry.metrics import TLSMetrics, one_counter, pool_metrics
from nitroproxy.telemetry.shipping import LogShipper, post_to
from nitroproxy.tls.client import TLSClient
from nitroproxy.tls.settings import TLSFileError

_log: Final = Logger()
_HOP: Final = "nitroproxy-enclave"


class Options(DaemonOptions):
    """Options of `twistd nitroproxy-enclave`."""

    longdesc = "The enclave side of nitroproxy: the proxy whose TLS starts inside the enclave."
    reads_tls_files = True


@dataclass(frozen=True)
class _Parts:
    """What the configuration makes, and a reload makes anew."""

    pool: Pool
    router: EnclaveRouter


class _Enclave:
    """What lasts as long as the daemon.

    :param log: the descriptor to log to.
    :raises Unloadable: when a file that the section tls names cannot be used.
    """

    def __init__(self, reactor: Any, configuration: Configuration, log: int) -> None:
        self.reactor = reactor
        settings = self.settings = configuration.settings
        logging = settings.logging
        self.deadlines = Deadlines(reactor)
        self.instruments = Instruments(
            reactor,
            "enclave",
            __version__,
            level=logging.level,
            form=logging.format,
            access=logging.access,
            output=log,
        )
        self.connects = self.instruments.watch_connects("relay")
        self.handshakes = TLSMetrics()
        self.parts = self.build(settings)
        observer = self.instruments.observer(_HOP)
        places = Places()
        self.from_parent, self.from_enclave = (
            DownstreamFactory(_HOP, self.parts.router, listener_settings(settings), self.deadlines, observer, places)
            for _ in range(2)
        )
        self.limit(settings)
        self.instruments.metrics.sources += [
            self.handshakes.collect,
            pool_metrics("destinations", lambda: self.parts.pool),
        ]
        self.shipper = self.ship_log(settings) if logging.port else None

    def build(self, settings: Settings) -> _Parts:
        """The parts that depend on the configuration."""
        limits, deadlines = settings.limits, self.deadlines
        endpoint, place = hop_client(self.reactor, settings, "host", settings.egress.port)
        failure = f"cannot reach the egress relay at {place}"
        relay = HopEndpoint(endpoint, Kind.RELAY_UNAVAILABLE, failure, limits.buffer_bytes, self.connects)
        try:
            tls = TLSClient(tls_settings(settings.tls), shook_hands=self.handshakes.shook_hands)
        except TLSFileError as error:
            raise Unloadable(str(error)) from error
        dialer = Dialer(relay, tls)
        limits_of_pool = pool_settings(limits, patience=ENCLAVE_PATIENCE, connections=enclave_places(settings))
        pool = Pool(dialer.endpoint_for, deadlines, limits_of_pool, end_is_proof=dialer.verifies_end)
        policy = Policy(settings.egress.allow, settings.egress.deny)
        health = HealthOfEnclave(
            relay, policy, deadlines, __version__, limits_of_pool, verifies=settings.tls.verify_certificates
        )
        site = enclave_site(health, partial(own_metrics, self.instruments.metrics))
        return _Parts(pool, EnclaveRouter(policy, pool, dialer, site, allow_plaintext=settings.tls.allow_plaintext))

    def limit(self, settings: Settings) -> None:
        """Put the limits in force; requests that have begun keep theirs."""
        from_parent = OnlyFrom(settings.transport.parent_cid)
        together = enclave_places(settings)
        self.from_parent.settings = replace(
            listener_settings(settings, from_parent, HOP_FIELDS, ENCLAVE_PATIENCE), together=together
        )
        self.from_enclave.settings = replace(listener_settings(settings), together=together)

    def prepare(self, settings: Settings) -> Callable[[], None]:
        """Everything new, to be put in force at once. See `Reloader`."""
        parts = self.build(settings)

        def commit() -> None:
            old, self.parts, self.settings = self.parts, parts, settings
            self.from_parent.router = self.from_enclave.router = parts.router
            self.limit(settings)
            self.instruments.log.set_level(settings.logging.level)
            old.pool.retire()
            for factory in (self.from_parent, self.from_enclave):
                factory.end_refused_tunnels()

        return commit

    def retire(self) -> None:
        """Let go of the connections to destinations."""
        self.parts.pool.retire()

    def ship_log(self, settings: Settings) -> LogShipper:
        """The log's way to the host."""
        endpoint, place = hop_client(self.reactor, settings, "host", settings.logging.port)
        tried = self.instruments.watch_connects("logs")
        failure = f"cannot reach the host's log listener at {place}"
        host = HopEndpoint(endpoint, Kind.RELAY_UNAVAILABLE, failure, settings.limits.buffer_bytes, tried)
        pool = Pool(
            lambda key, identity: host, self.deadlines, pool_settings(settings.limits), end_is_proof=lambda key: False
        )
        shipper = LogShipper(post_to(pool, self.deadlines), self.reactor)
        self.instruments.takers.append(shipper.take)
        lost = one_counter("log_lines_not_shipped", "Log lines lost before the host had them.", lambda: shipper.dropped)
        self.instruments.metrics.sources.append(lost)
        return shipper

    def listeners(self) -> list[ListeningPlace]:
        """Where the host and where applications in the enclave find the proxy."""
        settings, enclave = self.settings, self.settings.enclave
        listeners = [ListeningPlace(*hop_server(self.reactor, settings, "enclave", enclave.port), self.from_parent)]
        if enclave.proxy_port:
            server = tcp_server(self.reactor, enclave.proxy_interface, enclave.proxy_port)
            listeners.append(ListeningPlace(*server, self.from_enclave))
        return listeners


def makeService(options: Options) -> IService:
    """The enclave daemon, ready to start."""
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    configuration = options.configuration
    try:
        enclave = _Enclave(reactor, configuration, options.open_log())
    except Unloadable as error:
        exit_with(f"{_HOP}: {error}")
    if not configuration.settings.tls.verify_certificates:
        _log.warn("tls.verify_certificates is off: upstream certificates are NOT verified", event="not_verifying")
    try:
        listeners = enclave.listeners()
    except OSError as error:
        exit_with(f"{_HOP}: transport.directory: {error.filename}: {error.strerror}")
    shipper = enclave.shipper
    daemon = Daemon(
        reactor,
        [listeners],
        enclave.instruments,
        Notifier(os.environ),
        lambda: enclave.settings.limits.drain_timeout,
        [
            enclave.retire,
            *([shipper.flush, shipper.stop] if shipper is not None else []),
            enclave.deadlines.stop,
        ],
    )
    daemon.reload = reloader = Reloader(configuration, options.load, enclave.prepare, time.time)
    enclave.instruments.metrics.sources.append(reloader.collect)
    return daemon
