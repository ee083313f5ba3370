"""What the host daemon is made of, built from the configuration: the part that serves, and the enclave's log.

For `host.service` alone, which joins them in one process or in several.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from twisted.internet.interfaces import IStreamServerEndpoint

from nitroproxy import __version__
from nitroproxy.config.load import Configuration
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.place import ListeningPlace
from nitroproxy.daemon.wiring import (
    HOP_FIELDS,
    RELAY_PATIENCE,
    OnlyFrom,
    gateway_server,
    hop_client,
    hop_server,
    listener_settings,
    pool_settings,
    relay_settings,
)
from nitroproxy.errors import Kind
from nitroproxy.host.dial import Resolver
from nitroproxy.host.dns import Names
from nitroproxy.host.egress import EgressRouter, relay_site
from nitroproxy.host.gateway import GatewayRouter
from nitroproxy.host.log_intake import LOG_CONNECTIONS, LogIntake, LogRouter
from nitroproxy.host.lookup import Lookups
from nitroproxy.host.own_addresses import OwnAddresses
from nitroproxy.host.pages import HealthOfHost, MetricsOfBoth, gateway_site
from nitroproxy.policy import AddressGuard, Policy
from nitroproxy.proxy.connect_endpoint import HopEndpoint
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.exposition import own_metrics
from nitroproxy.telemetry.instruments import Instruments
from nitroproxy.telemetry.metrics import pool_metrics
from nitroproxy.workers.worker import AllWorkers

#: What gateway, relay and log listener are called.
GATEWAY: Final = "nitroproxy-host"
RELAY: Final = "nitroproxy-relay"
LOGS: Final = "nitroproxy-logs"


@dataclass(frozen=True)
class Parts:
    """What the configuration makes, and a reload makes anew."""

    pool: Pool
    gateway: GatewayRouter
    relay: EgressRouter


def instruments_of(reactor: Any, settings: Settings, output: int, worker: int = 0) -> Instruments:
    """What watches a process of the daemon. See `Instruments` for *output* and *worker*."""
    logging = settings.logging
    return Instruments(
        reactor,
        "host",
        __version__,
        level=logging.level,
        form=logging.format,
        access=logging.access,
        output=output,
        worker=worker,
    )


class EnclaveLog:
    """The enclave's log: in one process, for its lines are numbered."""

    def __init__(self, reactor: Any, instruments: Instruments, deadlines: Deadlines, settings: Settings) -> None:
        self._reactor = reactor
        self.intake = LogIntake(settings.enclave.cid, instruments.lines.take)
        self.factory = DownstreamFactory(
            LOGS, LogRouter(self.intake), listener_settings(settings), deadlines, instruments.observer(LOGS)
        )
        self.limit(settings)
        instruments.metrics.sources.append(self.intake.collect)

    def limit(self, settings: Settings) -> None:
        """Put the limits in force."""
        wanted = _from_enclave(settings)
        self.factory.settings = replace(wanted, connections=min(wanted.connections, LOG_CONNECTIONS))

    def stages(self, settings: Settings) -> list[list[ListeningPlace]]:
        """The listener; what is logged about all requests comes last."""
        if not settings.logging.port:
            return []
        return [[ListeningPlace(*hop_server(self._reactor, settings, "host", settings.logging.port), self.factory)]]


def _from_enclave(settings: Settings) -> ListenerSettings:
    return listener_settings(settings, OnlyFrom(settings.enclave.cid), HOP_FIELDS, RELAY_PATIENCE)


class Proxy:
    """What serves, and lasts as long as the process: gateway and relay.

    :param whole: what all processes of the daemon are together; None: this is the only one.
    """

    def __init__(
        self, reactor: Any, configuration: Configuration, instruments: Instruments, whole: AllWorkers | None = None
    ) -> None:
        self.reactor = reactor
        self.settings = configuration.settings
        self.instruments = instruments
        self.whole = whole
        self.deadlines = Deadlines(reactor)
        self.own_addresses = OwnAddresses(self.deadlines.seconds)
        self.lookups = Lookups(Names(reactor).look_up)
        self.connects = self.instruments.watch_connects("enclave")
        self.parts = self.build(configuration.settings)
        self.gateway = self.factory(GATEWAY, self.parts.gateway)
        self.relay = self.factory(RELAY, self.parts.relay)
        self.limit(configuration.settings)
        self.instruments.metrics.sources.append(pool_metrics("enclave", lambda: self.parts.pool))

    def factory(self, hop: str, router: GatewayRouter | EgressRouter) -> DownstreamFactory:
        """A listener's side of the engine."""
        observer = self.instruments.observer(hop)
        return DownstreamFactory(hop, router, listener_settings(Settings()), self.deadlines, observer)

    def build(self, settings: Settings) -> Parts:
        """The parts that depend on the configuration."""
        reactor, deadlines, limits = self.reactor, self.deadlines, settings.limits
        endpoint, place = hop_client(reactor, settings, "enclave", settings.enclave.port)
        failure = f"cannot reach the enclave at {place}"
        enclave = HopEndpoint(endpoint, Kind.ENCLAVE_UNAVAILABLE, failure, limits.buffer_bytes, self.connects)
        pool = Pool(
            lambda key, identity: enclave, deadlines, pool_settings(limits, HOP_FIELDS), end_is_proof=lambda key: False
        )
        whole = self.whole
        health = HealthOfHost(
            pool,
            deadlines,
            __version__,
            verifies=settings.tls.verify_certificates,
            workers=whole.check if whole is not None else None,
        )
        collect = whole.metrics if whole is not None else partial(own_metrics, self.instruments.metrics)
        metrics = MetricsOfBoth(collect, pool, deadlines)
        gateway = GatewayRouter(pool, enclave, gateway_site(health, metrics, __version__))

        guard = AddressGuard(settings.egress.allow_addresses, self.own_addresses)
        resolver = Resolver(self.lookups, guard, deadlines, limits.connect_timeout / 2)
        policy = Policy(settings.egress.allow, settings.egress.deny)
        timeout = limits.connect_timeout * RELAY_PATIENCE
        site = relay_site(resolver, policy, __version__)
        relay = EgressRouter(reactor, resolver, policy, deadlines, timeout, site)
        return Parts(pool, gateway, relay)

    def limit(self, settings: Settings) -> None:
        """Put the limits in force; requests that have begun keep theirs."""
        self.gateway.settings = listener_settings(settings)
        self.relay.settings = relay_settings(settings)

    def prepare(self, settings: Settings) -> Callable[[], None]:
        """Everything new, to be put in force at once. See `Reloader`."""
        parts = self.build(settings)

        def commit() -> None:
            old, self.parts, self.settings = self.parts, parts, settings
            self.gateway.router, self.relay.router = parts.gateway, parts.relay
            self.limit(settings)
            self.instruments.log.set_level(settings.logging.level)
            old.pool.retire()
            self.relay.end_refused_tunnels()

        return commit

    def retire(self) -> None:
        """Let go of the connections to the enclave."""
        self.parts.pool.retire()

    @property
    def at_end(self) -> list[Callable[[], object]]:
        """What to put away in the end."""
        return [self.retire, self.deadlines.stop]


#: An endpoint and the name of its place.
Server = tuple[IStreamServerEndpoint, str]


def servers(reactor: Any, settings: Settings) -> tuple[Server, Server]:
    """Where gateway and relay listen, in the order in which they stop: the gateway's last requests still go out through
    the relay."""
    return gateway_server(reactor, settings), hop_server(reactor, settings, "host", settings.egress.port)
