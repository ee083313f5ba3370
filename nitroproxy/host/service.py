"""The host daemon's composition root: `twistd nitroproxy-host`. Reads the configuration, builds the parts, joins
them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Any, Final

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from nitroproxy import __version__
from nitroproxy.config import Configuration, Settings
from nitroproxy.daemon import Daemon, Listener, exit_with
from nitroproxy.errors import Kind
from nitroproxy.host.dial import Resolver
from nitroproxy.host.egress import EgressRouter, relay_site
from nitroproxy.host.gateway import GatewayRouter
from nitroproxy.host.interfaces import OwnAddresses, own_addresses
from nitroproxy.host.logbook import LogIntake, LogRouter
from nitroproxy.host.lookup import THREADS, Lookups, in_thread
from nitroproxy.host.resource import HealthOfHost, MetricsOfBoth, gateway_site
from nitroproxy.notify import Notifier
from nitroproxy.options import DaemonOptions
from nitroproxy.policy import AddressGuard, Policy
from nitroproxy.proxy.connect import HopEndpoint
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.upstream import Pool
from nitroproxy.reload import Reloader
from nitroproxy.telemetry.instruments import Instruments
from nitroproxy.telemetry.metrics import pool_metrics
from nitroproxy.wiring import (
    HOP_FIELDS,
    OnlyFrom,
    gateway_server,
    hop_client,
    hop_server,
    listener_settings,
    pool_settings,
)

_log: Final = Logger()


class Options(DaemonOptions):
    """Options of `twistd nitroproxy-host`."""

    longdesc = "The host side of nitroproxy: the HTTP gateway and the enclave's egress relay."


@dataclass(frozen=True)
class _Parts:
    """What the configuration makes, and a reload makes anew."""

    pool: Pool
    gateway: GatewayRouter
    relay: EgressRouter


class _Host:
    """What lasts as long as the daemon."""

    def __init__(self, reactor: Any, configuration: Configuration) -> None:
        self.reactor = reactor
        self.settings = configuration.settings
        logging = configuration.settings.logging
        self.deadlines = Deadlines(reactor)
        self.own_addresses = OwnAddresses(self.deadlines.seconds)
        self.threads = ThreadPool(0, THREADS, "lookup")
        self.threads.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]  # as good as the class
        self.threads.start()
        self.lookups = Lookups(in_thread(reactor, self.threads))
        self.instruments = Instruments(
            reactor, "host", __version__, level=logging.level, form=logging.format, access=logging.access
        )
        self.connects = self.instruments.watch_connects("enclave")
        self.intake = LogIntake(configuration.settings.enclave.cid, self.instruments.lines.take)
        self.parts = self.build(configuration.settings)
        self.gateway = self.factory("nitroproxy-host", self.parts.gateway)
        self.relay = self.factory("nitroproxy-relay", self.parts.relay)
        self.logs = DownstreamFactory(
            "nitroproxy-logs", LogRouter(self.intake), listener_settings(configuration.settings), self.deadlines
        )
        self.limit(configuration.settings)
        self.instruments.metrics.sources += [pool_metrics("enclave", lambda: self.parts.pool), self.intake.collect]

    def factory(self, hop: str, router: GatewayRouter | EgressRouter) -> DownstreamFactory:
        """A listener's side of the engine."""
        observer = self.instruments.observer(hop)
        return DownstreamFactory(hop, router, listener_settings(Settings()), self.deadlines, observer)

    def build(self, settings: Settings) -> _Parts:
        """The parts that depend on the configuration."""
        reactor, deadlines, limits = self.reactor, self.deadlines, settings.limits
        endpoint, place = hop_client(reactor, settings, "enclave", settings.enclave.port)
        failure = f"cannot reach the enclave at {place}"
        enclave = HopEndpoint(endpoint, Kind.ENCLAVE_UNAVAILABLE, failure, limits.buffer_bytes, self.connects)
        pool = Pool(
            lambda key, identity: enclave, deadlines, pool_settings(limits, HOP_FIELDS), end_is_proof=lambda key: False
        )
        health = HealthOfHost(pool, deadlines, __version__, verifies=settings.tls.verify_certificates)
        metrics = MetricsOfBoth(self.instruments.metrics, pool, deadlines)
        gateway = GatewayRouter(pool, enclave, gateway_site(health, metrics, __version__))

        guard = AddressGuard(settings.egress.allow_addresses, self.own_addresses)
        resolver = Resolver(self.lookups, guard, deadlines, limits.connect_timeout / 2)
        policy = Policy(settings.egress.allow, settings.egress.deny)
        # A little less than the enclave waits, so that it is told why.
        timeout = limits.connect_timeout * 0.9
        site = relay_site(resolver, policy, __version__)
        relay = EgressRouter(reactor, resolver, policy, deadlines, timeout, site)
        return _Parts(pool, gateway, relay)

    def limit(self, settings: Settings) -> None:
        """Put the limits in force; requests that have begun keep theirs."""
        self.gateway.settings = listener_settings(settings)
        from_enclave = listener_settings(settings, OnlyFrom(settings.enclave.cid), HOP_FIELDS)
        self.relay.settings = self.logs.settings = from_enclave

    def prepare(self, configuration: Configuration) -> Callable[[], None]:
        """Everything new, to be put in force at once. See `Reloader`."""
        settings = configuration.settings
        parts = self.build(settings)

        def commit() -> None:
            old, self.parts, self.settings = self.parts, parts, settings
            self.gateway.router, self.relay.router = parts.gateway, parts.relay
            self.limit(settings)
            self.instruments.log.set_level(settings.logging.level)
            old.pool.retire()

        return commit

    def stop_lookups(self) -> None:
        """End the threads; but not one that hangs in a lookup, for which the daemon would wait."""
        if not self.threads.working:
            self.threads.stop()

    def retire(self) -> None:
        """Let go of the connections to the enclave."""
        self.parts.pool.retire()

    def stages(self, settings: Settings) -> list[list[Listener]]:
        """The listeners, in the order in which they stop: the gateway's last requests still go out through the relay,
        and what is logged about all of them comes last."""
        stages = [
            [Listener(*gateway_server(self.reactor, settings), self.gateway)],
            [Listener(*hop_server(self.reactor, settings, "host", settings.egress.port), self.relay)],
        ]
        if settings.logging.port:
            stages.append([Listener(*hop_server(self.reactor, settings, "host", settings.logging.port), self.logs)])
        return stages


def makeService(options: Options) -> IService:
    """The host daemon, ready to start."""
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    configuration = options.configuration
    settings = configuration.settings
    try:
        own_addresses()  # The address guard asks again and again; but without them no daemon should begin.
    except OSError as error:
        exit_with(f"nitroproxy-host: this machine's own addresses cannot be read: {error}")
    host = _Host(reactor, configuration)
    if not settings.tls.verify_certificates:
        _log.warn("tls.verify_certificates is off: upstream certificates are NOT verified", event="not_verifying")
    daemon = Daemon(
        reactor,
        host.stages(settings),
        host.instruments,
        Notifier(os.environ),
        lambda: host.settings.limits.drain_timeout,
        [host.retire, host.stop_lookups, host.deadlines.stop],
    )
    daemon.reload = Reloader(configuration, options.load, host.prepare, time.time)
    host.instruments.metrics.sources.append(daemon.reload.collect)
    return daemon
