"""What the host daemon is made of, built from the configuration: the part that serves, and `once` what there is once.

`HostRole` gives them to the composition roots (`nitroproxy.daemon.role`), which run them in one process or several.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.logger import Logger

from nitroproxy import __version__
from nitroproxy.config.kinds import proxy_address
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.ingress import IngressListeners, Way, outside_servers
from nitroproxy.daemon.place import exit_with
from nitroproxy.daemon.reload import Unloadable
from nitroproxy.daemon.role import AllProcesses, AskOnce, Commit, Process, Rest, Server, Stages
from nitroproxy.daemon.wiring import (
    HOP_FIELDS,
    RELAY_PATIENCE,
    gateway_server,
    hop_client,
    hop_server,
    instruments_of,
    listener_settings,
    pool_settings,
    relay_settings,
)
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host.credentials import CredentialsDaemon
from nitroproxy.host.dial import CheckedEndpoint, Resolver
from nitroproxy.host.dns import Names
from nitroproxy.host.egress import UNCHECKED, EgressRouter, relay_site
from nitroproxy.host.gateway import ENCLAVE, GatewayRouter
from nitroproxy.host.lookup import Lookups
from nitroproxy.host.once import HostOnce
from nitroproxy.host.own_addresses import OwnAddresses, own_addresses
from nitroproxy.host.pages import HealthOfHost, MetricsOfBoth, gateway_site
from nitroproxy.host.upstream_proxy import ProxyOfOthers, UpstreamProxy, read_credentials
from nitroproxy.http1.messages import Headers
from nitroproxy.policy import AddressGuard, Policy
from nitroproxy.proxy.connect_endpoint import HopEndpoint
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.fetch import fetch
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.observer import Observers
from nitroproxy.proxy.passage import PassageRouter
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.exposition import own_metrics
from nitroproxy.telemetry.failures import FAILURES, Failures
from nitroproxy.telemetry.health import LONGEST_HEALTH
from nitroproxy.telemetry.metrics import limit_metrics, pool_metrics

_log: Final = Logger()

#: The names of gateway and relay.
GATEWAY: Final = "nitroproxy-host"
RELAY: Final = "nitroproxy-relay"

#: Seconds that the enclave may take to answer that it closes idle connections.
_RELEASE_TIMEOUT: Final = 0.85
#: The part of the time for a connection in which an upstream proxy must have answered.
_PROXY_PATIENCE: Final = 0.95


@dataclass(frozen=True)
class _Built:
    """What the configuration makes, and a reload makes anew."""

    pool: Pool
    gateway: GatewayRouter
    relay: EgressRouter


class HostProxy:
    """What serves, and lasts as long as the process: gateway and relay. See `nitroproxy.daemon.role.Serving`."""

    def __init__(self, process: Process, settings: Settings, whole: AllProcesses | None, ask_once: AskOnce) -> None:
        self._process = process
        self._whole = whole
        self._ask_once = ask_once
        instruments, deadlines = process.instruments, process.deadlines
        self._own_addresses = OwnAddresses(deadlines.seconds)
        self._lookups = Lookups(Names(process.reactor).look_up)
        self._connects = instruments.watch_connects("enclave")
        self._credentials = _credentials_daemon(process, settings)
        self._built = built = self._build(settings)
        _tell_way_out(settings)
        failures = Failures(GATEWAY, deadlines.seconds)
        self.answerers: Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]] = {FAILURES: failures.answer}
        observer = Observers(instruments.observer(GATEWAY), failures)
        self._gateway = DownstreamFactory(GATEWAY, built.gateway, listener_settings(settings), deadlines, observer)
        self._relay = DownstreamFactory(
            RELAY, built.relay, relay_settings(settings), deadlines, instruments.observer(RELAY)
        )
        self._ingress = IngressListeners(process, settings, self._ways)
        self._relay.release = self._release_idle
        instruments.metrics.sources += [
            pool_metrics("enclave", lambda: self._built.pool),
            limit_metrics({factory.hop: factory.limit for factory in (self._gateway, self._relay)}),
        ]
        self.factories: Sequence[DownstreamFactory] = [self._gateway, *self._ingress.factories, self._relay]
        self.at_end: Sequence[Callable[[], object]] = [self._retire]

    def take(self, shared: bytes) -> None:
        """See `nitroproxy.daemon.role.Serving`: the host daemon shares nothing."""

    def _build(self, settings: Settings) -> _Built:
        """The parts that depend on the configuration."""
        deadlines, limits = self._process.deadlines, settings.limits
        enclave = self._enclave_at(settings, settings.enclave.port)
        pool = Pool(
            lambda key, identity: enclave, deadlines, pool_settings(limits, HOP_FIELDS), end_is_proof=lambda key: False
        )
        whole = self._whole
        health = HealthOfHost(
            pool,
            deadlines,
            __version__,
            self._ask_once,
            ingress=bool(settings.ingress.forwards),
            verifies=settings.tls.verify_certificates,
            workers=whole.check if whole is not None else None,
            draining=lambda: self._process.draining,
            credentials=self._credentials.check if self._credentials is not None else None,
        )
        collect = whole.metrics if whole is not None else partial(own_metrics, self._process.instruments.metrics)
        metrics = MetricsOfBoth(collect, pool, deadlines, settings.enclave.processes)
        gateway = GatewayRouter(pool, enclave, gateway_site(health, metrics, __version__, self._ask_once))
        return _Built(pool, gateway, self._build_relay(settings))

    def _ways(self, settings: Settings) -> list[Way]:
        """Where connections from outside lead: to the enclave, each to the vsock port of its forward, the last to the
        attested listener. The order is that of `outside_servers`."""
        ways = [
            Way(
                PassageRouter(
                    self._enclave_at(settings, forward.vsock),
                    ("enclave", forward.vsock),
                    sends_header=forward.sends_header,
                ),
                requires_header=forward.accepts_header,
                peers_are_proxies=forward.accepts_header,
            )
            for forward in settings.ingress.forwards
        ]
        if settings.ingress.tcp_port:
            port = settings.ingress.port
            attested = PassageRouter(self._enclave_at(settings, port), ("enclave", port))
            ways.append(Way(attested, requires_header=False, peers_are_proxies=False))
        return ways

    def _enclave_at(self, settings: Settings, port: int) -> HopEndpoint:
        """The enclave's vsock port *port*."""
        endpoint, place = hop_client(self._process.reactor, settings, "enclave", port)
        failure = f"cannot reach the enclave at {place}"
        buffer_bytes = settings.limits.buffer_bytes
        return HopEndpoint(endpoint, Kind.ENCLAVE_UNAVAILABLE, failure, buffer_bytes, self._connects)

    def _build_relay(self, settings: Settings) -> EgressRouter:
        deadlines, limits = self._process.deadlines, settings.limits
        guard = AddressGuard(settings.egress.allow_addresses, self._own_addresses)
        resolver = Resolver(self._lookups, guard, deadlines, limits.connect_timeout / 2)
        policy = Policy(settings.egress.allow, settings.egress.deny)
        timeout = limits.connect_timeout * RELAY_PATIENCE
        upstream = self._build_upstream(settings, timeout)
        site = relay_site(resolver, policy, __version__, self._credentials, upstream)
        return EgressRouter(self._process.reactor, resolver, policy, deadlines, timeout, site, upstream)

    def _build_upstream(self, settings: Settings, timeout: float) -> UpstreamProxy | None:
        """The proxy that leads out. Its own address is the configuration's, and may be any."""
        configured, deadlines = settings.egress.upstream_proxy, self._process.deadlines
        if configured is None:
            return None
        credentials: Headers = []
        if configured.credentials_file is not None:
            try:
                credentials = read_credentials(configured.credentials_file)
            except ValueError as error:
                raise Unloadable(f"egress.upstream_proxy: credentials_file: {error}") from error
        anywhere = AddressGuard(["0.0.0.0/0", "::/0"], tuple)
        resolver = Resolver(self._lookups, anywhere, deadlines, settings.limits.connect_timeout / 2)
        host, port = proxy_address(configured.url)
        endpoint = CheckedEndpoint(self._process.reactor, resolver, deadlines, host, port, timeout * _PROXY_PATIENCE)
        proxy = ProxyOfOthers(endpoint, configured.url, credentials, configured.no_proxy)
        return UpstreamProxy(proxy, deadlines, timeout * _PROXY_PATIENCE)

    def prepare(self, settings: Settings) -> Commit:
        """See `nitroproxy.daemon.role.Part`. Requests that have begun keep their settings."""
        built, ingress = self._build(settings), self._ingress.prepare(settings)

        def commit() -> None:
            ingress()
            old, self._built = self._built, built
            _tell_way_out(settings)
            self._gateway.router, self._relay.router = built.gateway, built.relay
            self._gateway.settings, self._relay.settings = listener_settings(settings), relay_settings(settings)
            old.pool.retire()
            self._relay.end_refused_tunnels()

        return commit

    def close_idle(self) -> None:
        """See `nitroproxy.daemon.role.Serving`."""
        self._built.pool.close_idle()

    def _release_idle(self) -> None:
        """Have the enclave close the tunnels that it keeps in reserve."""
        path, deadlines = b"/close-idle", self._process.deadlines
        asking = Deferred.fromCoroutine(
            fetch(
                self._built.pool, ENCLAVE, path, deadlines, _RELEASE_TIMEOUT, LONGEST_HEALTH, method=b"POST", body=b""
            )
        )
        # It may have gone, and its tunnels with it.
        asking.addErrback(lambda failure: failure.trap(ProxyError, CancelledError))

    def _retire(self) -> None:
        """Close the connections to the enclave."""
        self._built.pool.retire()


def _credentials_daemon(process: Process, settings: Settings) -> CredentialsDaemon | None:
    """The credentials daemon, if the enclave is to have a role's credentials; a reload changes nothing of it."""
    if settings.credentials.role is None:
        return None
    path, instruments = settings.credentials.socket, process.instruments
    endpoint = UNIXClientEndpoint(process.reactor, path, timeout=settings.limits.connect_timeout)
    failure = f"cannot reach nitroproxy-credentials at {path}"
    connects = instruments.watch_connects("credentials")
    hop = HopEndpoint(endpoint, Kind.CREDENTIALS_UNAVAILABLE, failure, settings.limits.buffer_bytes, connects)
    pool = Pool(
        lambda key, identity: hop, process.deadlines, pool_settings(settings.limits), end_is_proof=lambda key: False
    )
    daemon = CredentialsDaemon(pool, process.deadlines)
    instruments.metrics.sources.append(daemon.collect)
    return daemon


def _tell_way_out(settings: Settings) -> None:
    """Log what an upstream proxy means for the address guard."""
    if settings.egress.upstream_proxy is not None:
        text = "the relay reaches destinations through {proxy}, which looks names up: " + UNCHECKED
        _log.warn(text, event="upstream_proxy", proxy=settings.egress.upstream_proxy.url)


class HostRole:
    """The host daemon: see `nitroproxy.daemon.role.Role`."""

    name = GATEWAY

    def processes(self, settings: Settings) -> int:
        """See `Role`."""
        return settings.host_proxy.processes

    def drain_delay(self, settings: Settings) -> float:
        """See `Role`."""
        return settings.host_proxy.drain_delay

    def check(self, settings: Settings) -> None:
        """See `Role`: the address guard needs this machine's own addresses."""
        try:
            own_addresses()  # The guard asks again and again; but without them no daemon should begin.
        except OSError as error:
            exit_with(f"{GATEWAY}: this machine's own addresses cannot be read: {error}")

    def process(self, reactor: Any, settings: Settings, output: int, worker: int | None) -> Process:
        """See `Role`."""
        instruments = instruments_of(reactor, "host", settings, output, worker)
        return Process(reactor, settings, Deadlines(reactor), instruments, limits_descriptors=not worker)

    def servers(self, reactor: Any, settings: Settings) -> Stages:
        """See `Role`: the gateway and what comes from outside stop first: their last requests may still go out through
        the relay."""
        gateway, relay = gateway_server(reactor, settings), hop_server(reactor, settings, "host", settings.egress.port)
        return [[Server(*gateway, GATEWAY), *outside_servers(reactor, settings)], [Server(*relay, RELAY)]]

    def serving(self, process: Process, settings: Settings, whole: AllProcesses | None, ask_once: AskOnce) -> HostProxy:
        """See `Role`."""
        return HostProxy(process, settings, whole, ask_once)

    def once(self, process: Process, settings: Settings, rest: Rest) -> HostOnce:
        """See `Role`."""
        return HostOnce(process, settings, rest)
