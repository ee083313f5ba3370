"""What the host daemon has once, however many processes it has: the enclave's log, a look at the whole stack again and
again, and the listener for load balancers, orchestrators and scrapers.

See `nitroproxy.daemon.role.Once`. `nitroproxy.host.components` is its only user.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

import msgspec
from prometheus_client.core import Metric
from twisted.internet.defer import Deferred

from nitroproxy import __version__
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.place import ListeningPlace
from nitroproxy.daemon.role import Commit, Process, Rest, asked_here
from nitroproxy.daemon.wiring import (
    HOP_FIELDS,
    RELAY_PATIENCE,
    OnlyFrom,
    enclave_cid,
    hop_client,
    hop_server,
    listener_settings,
    pool_settings,
    tcp_server,
)
from nitroproxy.errors import Kind
from nitroproxy.host.enclave_end import EnclaveEnd
from nitroproxy.host.log_intake import LOG_CONNECTIONS, LogIntake, LogRouter
from nitroproxy.host.monitor import Monitor
from nitroproxy.host.pages import HealthOfHost, HealthRouter, MetricsOfBoth, health_site
from nitroproxy.host.status import latest
from nitroproxy.host.status_resource import STATUS
from nitroproxy.proxy.connect_endpoint import HopEndpoint
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.exposition import own_metrics
from nitroproxy.telemetry.failures import FAILURES, Failure, Failures
from nitroproxy.telemetry.health import Health
from nitroproxy.telemetry.metrics import limit_metrics

#: The names of the log listener and of the health listener.
LOGS: Final = "nitroproxy-logs"
HEALTH: Final = "nitroproxy-health"
#: Connections that the health listener serves at a time, at most.
_HEALTH_CONNECTIONS: Final = 64


class EnclaveLog:
    """The enclave's log, which one process takes: its lines are numbered."""

    def __init__(self, process: Process, settings: Settings) -> None:
        instruments = process.instruments
        self._lines = instruments.lines
        self._end = EnclaveEnd(time.time)
        self.failures = Failures("", process.deadlines.seconds)
        self.answerers: Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]] = self._end.answerers
        self.intake = LogIntake(settings.enclave.cid, self._take)
        self.factory = DownstreamFactory(
            LOGS, LogRouter(self.intake), _log_settings(settings), process.deadlines, instruments.observer(LOGS)
        )
        instruments.metrics.sources.append(self.intake.collect)
        self.places: Sequence[ListeningPlace] = []
        if settings.logging.port:
            server = hop_server(process.reactor, settings, "host", settings.logging.port)
            self.places = [ListeningPlace(*server, self.factory)]

    def _take(self, fields: Mapping[str, Any]) -> None:
        self._end.take(fields)
        self.failures.take(fields)
        self._lines.take(fields)


def _log_settings(settings: Settings) -> ListenerSettings:
    wanted = listener_settings(settings, OnlyFrom(enclave_cid(settings)), HOP_FIELDS, RELAY_PATIENCE)
    return replace(wanted, connections=min(wanted.connections, LOG_CONNECTIONS))


def _health_settings(settings: Settings) -> ListenerSettings:
    wanted = listener_settings(settings)
    return replace(wanted, connections=min(wanted.connections, _HEALTH_CONNECTIONS))


@dataclass(frozen=True)
class _Built:
    """What the configuration makes, and a reload makes anew."""

    pool: Pool
    health: HealthOfHost
    metrics: MetricsOfBoth
    router: HealthRouter


class HostOnce:
    """See the module."""

    def __init__(self, process: Process, settings: Settings, rest: Rest) -> None:
        self._process = process
        self._whole = rest.whole
        self._rest = rest
        instruments = process.instruments
        self.log = EnclaveLog(process, settings)
        self.answerers: Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]] = {
            **self.log.answerers,
            STATUS: self._tell_status,
        }
        self.shared = b""
        self._built = built = self._build(settings)
        self.monitor = Monitor(self._examine, self._collect, process.deadlines)
        instruments.metrics.sources.append(self.monitor.states.collect)
        self.health_factory = self._health_listener(settings, built.router)
        factories = [one for one in (self.log.factory, self.health_factory) if one is not None]
        instruments.metrics.sources.append(limit_metrics({factory.hop: factory.limit for factory in factories}))
        self.places: Sequence[ListeningPlace] = self.log.places
        self.at_end: Sequence[Callable[[], object]] = [self._retire]
        if self.health_factory is not None:
            gateway = settings.host_proxy
            server = tcp_server(process.reactor, gateway.health_interface, gateway.health_port)
            self.places = [*self.places, ListeningPlace(*server, self.health_factory)]

    def _health_listener(self, settings: Settings, router: HealthRouter) -> DownstreamFactory | None:
        if not settings.host_proxy.health_port:
            return None
        observer = self._process.instruments.observer(HEALTH)
        return DownstreamFactory(HEALTH, router, _health_settings(settings), self._process.deadlines, observer)

    async def _examine(self) -> Health:
        """Examine by the configuration that is in force."""
        return await self._built.health()

    async def _collect(self) -> Sequence[Metric]:
        """What both daemons count."""
        return await self._built.metrics()

    async def _tell_status(self, about: Any) -> Any:
        """The status document, in plain values."""
        await self.monitor.look()
        configuration = self._rest.configuration()
        answers = await self._rest.ask_serving(FAILURES)
        ours = [msgspec.convert(one, Failure) for answer in answers for one in answer]
        told = self.log.failures
        status = self.monitor.status(
            machine=os.uname().nodename,
            cid=enclave_cid(configuration.settings)(),
            now=time.time(),
            failures=latest(ours, told.tell(), prefer_told=told.told),
            configuration=list(configuration.unusual_rows()),
        )
        return msgspec.to_builtins(status)

    def _build(self, settings: Settings) -> _Built:
        """The parts that depend on the configuration."""
        deadlines, limits = self._process.deadlines, settings.limits
        endpoint, place = hop_client(self._process.reactor, settings, "enclave", settings.enclave.port)
        failure = f"cannot reach the enclave at {place}"
        # Not counted among the connections to the enclave: those are the traffic's.
        enclave = HopEndpoint(endpoint, Kind.ENCLAVE_UNAVAILABLE, failure, limits.buffer_bytes)
        pool = Pool(
            lambda key, identity: enclave, deadlines, pool_settings(limits, HOP_FIELDS), end_is_proof=lambda key: False
        )
        whole = self._whole
        health = HealthOfHost(
            pool,
            deadlines,
            __version__,
            asked_here(self.answerers),
            verifies=settings.tls.verify_certificates,
            workers=whole.check if whole is not None else None,
            draining=lambda: self._process.draining,
        )
        collect = whole.metrics if whole is not None else partial(own_metrics, self._process.instruments.metrics)
        metrics = MetricsOfBoth(collect, pool, deadlines, settings.enclave.processes)
        gateway = settings.host_proxy
        shows_status = gateway.health_status or ip_address(gateway.health_interface).is_loopback
        site = health_site(health, metrics, asked_here(self.answerers) if shows_status else None)
        return _Built(pool, health, metrics, HealthRouter(site))

    def watch(self, tell: Callable[[bytes], Deferred[Any]]) -> None:
        """See `nitroproxy.daemon.role.Once`: nothing is shared."""

    def prepare(self, settings: Settings) -> Commit:
        """See `nitroproxy.daemon.role.Part`."""
        built = self._build(settings)

        def commit() -> None:
            old, self._built = self._built, built
            if self.health_factory is not None:
                self.health_factory.router, self.health_factory.settings = built.router, _health_settings(settings)
            self.log.factory.settings = _log_settings(settings)
            old.pool.retire()

        return commit

    def _retire(self) -> None:
        """Close the connection to the enclave."""
        self._built.pool.retire()
