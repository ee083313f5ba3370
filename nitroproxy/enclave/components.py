"""What the enclave daemon is made of, by its configuration: the part that serves, and its log's way to the host.

`EnclaveRole` gives them to the composition roots (`nitroproxy.daemon.role`), which run them in one process or several.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from twisted.web.server import Request, Site

from nitroproxy import __version__
from nitroproxy.config.kinds import address_and_port
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.ingress import IngressListeners, Way, inside_servers
from nitroproxy.daemon.role import CLOSE_IDLE, AllProcesses, AskOnce, Commit, Process, Rest, Server, Stages
from nitroproxy.daemon.wiring import (
    ENCLAVE_PATIENCE,
    HOP_FIELDS,
    OnlyFrom,
    activated,
    enclave_places,
    hop_client,
    hop_server,
    instruments_of,
    listener_settings,
    pool_settings,
    tcp_server,
)
from nitroproxy.enclave.application import LOOPBACK, ApplicationEndpoint, ingress_check
from nitroproxy.enclave.credentials import CredentialsPage, CredentialsRequests
from nitroproxy.enclave.dialer import Dialer
from nitroproxy.enclave.forwards import ForwardRouter, forward_routers
from nitroproxy.enclave.health import HealthOfEnclave, attestation_check
from nitroproxy.enclave.identity import IdentityState
from nitroproxy.enclave.ingress import Application, IngressRouter
from nitroproxy.enclave.kms import add_kms_pages
from nitroproxy.enclave.once import (
    HOP,
    EnclaveOnce,
    attested_server,
    check_sockets,
    names_of,
    policy_of,
    tls_of,
    transparent_listeners,
)
from nitroproxy.enclave.pages import Attesting, add_pages, below_prefix, nothing_exported
from nitroproxy.enclave.router import EnclaveRouter, enclave_root
from nitroproxy.enclave.shipped_log import ShippedLog
from nitroproxy.errors import Kind
from nitroproxy.proxy.connect_endpoint import HopEndpoint
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.opening import Opening, passage
from nitroproxy.proxy.passage import PassageRouter
from nitroproxy.proxy.places import Places
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.proxy.socks import http_or_socks
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.attestation import HandshakeMetrics
from nitroproxy.telemetry.exposition import own_metrics
from nitroproxy.telemetry.health import Check, LocalRoot
from nitroproxy.telemetry.memory import machine_memory
from nitroproxy.telemetry.metrics import TLSMetrics, limit_metrics, pool_metrics
from nitroproxy.tls.server import exported_of
from nitroproxy.transparent.destination import Destinations
from nitroproxy.transparent.examination import Examination
from nitroproxy.transparent.network import LISTENER_V6


@dataclass(frozen=True)
class _Built:
    """What the configuration makes, and a reload makes anew."""

    pool: Pool
    for_parent: EnclaveRouter
    for_enclave: EnclaveRouter
    for_outside: IngressRouter
    application: Pool
    forwards: Sequence[ForwardRouter]


#: Places for the connections over which the host asks for health and metrics, besides those for its clients' requests.
_OF_THE_HOST: Final = 8


class EnclaveProxy:
    """What serves, and lasts as long as the process. See `nitroproxy.daemon.role.Serving`.

    :raises Unloadable: when a file that the section tls names cannot be used.
    """

    answerers: Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]] = MappingProxyType({})

    def __init__(self, process: Process, settings: Settings, whole: AllProcesses | None, ask_once: AskOnce) -> None:
        self._process = process
        self._whole = whole
        self._ask_once = ask_once
        self._attesting = Attesting(ask_once) if settings.attestation.device is not None else None
        self._credentials = CredentialsRequests() if settings.credentials.role is not None else None
        self._identity: IdentityState | None = None
        instruments = process.instruments
        if self._credentials is not None:
            instruments.metrics.sources.append(self._credentials.collect)
        self._connects = instruments.watch_connects("relay")
        self._handshakes = TLSMetrics()
        self._names = names_of(settings) if settings.enclave.transparent.enabled else None
        self._built = built = self._build(settings)
        observer, places = instruments.observer(HOP), Places()
        from_parent, from_enclave = _listeners(settings)
        self._from_parent = DownstreamFactory(HOP, built.for_parent, from_parent, process.deadlines, observer, places)
        openings: list[Opening] = [http_or_socks] if settings.enclave.proxy_port else []
        if self._names is not None:
            openings += [Destinations(self._names).opening] * len(transparent_listeners(settings))
        self._from_enclave = [
            DownstreamFactory(HOP, built.for_enclave, from_enclave, process.deadlines, observer, places, opening)
            for opening in openings
        ]
        self._from_outside = DownstreamFactory(HOP, built.for_outside, _outside(settings), process.deadlines, observer)
        self._forwards = [
            DownstreamFactory(HOP, router, from_enclave, process.deadlines, observer, places, passage())
            for router in built.forwards
        ]
        instruments.metrics.sources += [
            self._handshakes.collect,
            pool_metrics("destinations", lambda: self._built.pool),
            limit_metrics({HOP: self._from_parent.limit}),
        ]
        self._ingress = IngressListeners(process, settings, self._ways, OnlyFrom(lambda: settings.transport.parent_cid))
        self._attested = attested_server(settings)
        outside = []
        if self._attested is not None:
            counts = HandshakeMetrics()
            self._attested.shook_hands = counts.shook_hands
            pool = pool_metrics("application", lambda: self._built.application)
            instruments.metrics.sources += [counts.collect, pool]
            self._from_outside.outer = self._attested.around(
                self._from_outside, process.deadlines.after, lambda: self._from_outside.settings.header_timeout
            )
            outside = [self._from_outside]
        self.factories: Sequence[DownstreamFactory] = [
            *(*self._ingress.factories, *outside),
            *(self._from_parent, *self._from_enclave, *self._forwards),
        ]
        self.at_end: Sequence[Callable[[], object]] = [self._retire]

    def _ways(self, settings: Settings) -> list[Way]:
        """Where what the host brings from outside leads: to the application's ports."""
        timeout = settings.limits.connect_timeout * ENCLAVE_PATIENCE
        return [
            Way(
                PassageRouter(
                    ApplicationEndpoint(self._process.reactor, forward.to, timeout),
                    (LOOPBACK, forward.to),
                    sends_header=forward.sends_header,
                ),
                requires_header=forward.sends_header,
                peers_are_proxies=True,
            )
            for forward in settings.ingress.forwards
        ]

    def _build(self, settings: Settings) -> _Built:
        """The parts that depend on the configuration."""
        limits, deadlines = settings.limits, self._process.deadlines
        endpoint, place = hop_client(self._process.reactor, settings, "host", settings.egress.port)
        failure = f"cannot reach the egress relay at {place}"
        relay = HopEndpoint(endpoint, Kind.RELAY_UNAVAILABLE, failure, limits.buffer_bytes, self._connects)
        dialer = Dialer(relay, tls_of(settings, self._handshakes))
        limits_of_pool = pool_settings(limits, patience=ENCLAVE_PATIENCE, connections=enclave_places(settings))
        pool = Pool(dialer.endpoint_for, deadlines, limits_of_pool, end_is_proof=dialer.verifies_end)
        policy = policy_of(settings)
        whole = self._whole
        ports = [forward.to for forward in settings.ingress.forwards]
        if settings.ingress.application is not None:
            ports.append(settings.ingress.application)
        health = HealthOfEnclave(
            relay,
            policy,
            deadlines,
            __version__,
            limits_of_pool,
            verifies=settings.tls.verify_certificates,
            workers=whole.check if whole is not None else None,
            ingress=partial(ingress_check, ports) if ports else None,
            attestation=self._check_identity,
            transparent=self._examination(settings),
        )
        collect = whole.metrics if whole is not None else partial(own_metrics, self._process.instruments.metrics)
        close_idle = partial(self._ask_once, CLOSE_IDLE, None) if whole is not None else self.close_idle

        def router(*, own: bool) -> EnclaveRouter:
            root = enclave_root(health, collect, close_idle)
            if self._attesting is not None:
                add_pages(root, HOP, self._attesting, nothing_exported, own=own)
            if own:
                self._add_own_pages(root, settings, relay)
            return EnclaveRouter(policy, pool, dialer, Site(root), allow_plaintext=settings.tls.allow_plaintext)

        for_parent, for_enclave = router(own=False), router(own=True)
        application = self._application_pool(settings)
        outside = self._outside_router(settings, application, for_parent)
        # What speaks TLS through a forward is no HTTP: it offers no protocol.
        make_tls = partial(tls_of, settings, self._handshakes, protocols=())
        forwards = forward_routers(settings.enclave.forwards, policy, dialer, make_tls)
        return _Built(pool, for_parent, for_enclave, outside, application, forwards)

    def _application_pool(self, settings: Settings) -> Pool:
        """Connections to the application in the enclave."""
        limits, port = settings.limits, settings.ingress.application or 0
        endpoint = ApplicationEndpoint(self._process.reactor, port, limits.connect_timeout)
        return Pool(
            lambda key, identity: endpoint,
            self._process.deadlines,
            pool_settings(limits),
            end_is_proof=lambda key: True,  # Nobody can cut a connection on the enclave's loopback.
        )

    def _outside_router(self, settings: Settings, pool: Pool, proxy: EnclaveRouter) -> IngressRouter:
        ingress = settings.ingress
        root = LocalRoot(HOP)
        if self._attesting is not None:
            add_pages(root, HOP, self._attesting, _exported, own=False)
        application = Application(pool, (LOOPBACK, ingress.application)) if ingress.application is not None else None
        return IngressRouter(Site(root), application, proxy if ingress.client_ca_file is not None else None)

    def _add_own_pages(self, root: LocalRoot, settings: Settings, relay: HopEndpoint) -> None:
        """Add what only applications in the enclave may ask for: of KMS, and the role's credentials."""
        if self._attesting is not None:
            add_kms_pages(below_prefix(root, HOP), HOP, self._attesting, self._ask_once)
        token, deadlines = settings.credentials.token_sha256, self._process.deadlines
        if self._credentials is not None and token is not None:
            pool = Pool(
                lambda key, identity: relay, deadlines, pool_settings(settings.limits), end_is_proof=lambda key: False
            )
            page = CredentialsPage(pool, deadlines, token, self._credentials)
            below_prefix(root, HOP).putChild(b"credentials", page)

    def take(self, shared: bytes) -> None:
        """See `nitroproxy.daemon.role.Serving`: the enclave's identity."""
        identity = self._identity = IdentityState.read(shared) if shared else None
        if identity is not None and self._attested is not None:
            self._attested.use(identity.key, identity.certificate)

    def _check_identity(self) -> Check | None:
        return attestation_check(self._identity, time.time()) if self._identity is not None else None

    def _examination(self, settings: Settings) -> Examination | None:
        """Examines whether the connections of applications come here, for enclave.transparent."""
        if self._names is None:
            return None
        ipv6 = LISTENER_V6 in transparent_listeners(settings)
        return Examination(self._process.reactor, self._names, dns=settings.enclave.transparent.dns, ipv6=ipv6)

    def prepare(self, settings: Settings) -> Commit:
        """See `nitroproxy.daemon.role.Part`. Requests that have begun keep their settings."""
        built, ingress = self._build(settings), self._ingress.prepare(settings)

        def commit() -> None:
            ingress()
            old, self._built = self._built, built
            self._from_parent.router = built.for_parent
            self._from_parent.settings, from_enclave = _listeners(settings)
            for factory in self._from_enclave:
                factory.router, factory.settings = built.for_enclave, from_enclave
            for factory, forward in zip(self._forwards, built.forwards, strict=True):
                factory.router, factory.settings = forward, from_enclave
            self._from_outside.router, self._from_outside.settings = built.for_outside, _outside(settings)
            old.pool.retire()
            old.application.retire()
            for factory in (self._from_parent, *self._from_enclave, self._from_outside, *self._forwards):
                factory.end_refused_tunnels()

        return commit

    def close_idle(self) -> None:
        """See `nitroproxy.daemon.role.Serving`."""
        self._built.pool.close_idle()

    def _retire(self) -> None:
        """Close the connections to destinations and to the application."""
        self._built.pool.retire()
        self._built.application.retire()


def _listeners(settings: Settings) -> tuple[ListenerSettings, ListenerSettings]:
    """What the listener for the host allows, and that for applications in the enclave; they share their places."""
    from_parent = OnlyFrom(lambda: settings.transport.parent_cid)
    together = enclave_places(settings) + _OF_THE_HOST
    for_host = listener_settings(settings, from_parent, HOP_FIELDS, ENCLAVE_PATIENCE)
    return (
        replace(for_host, connections=for_host.connections + _OF_THE_HOST, together=together),
        replace(listener_settings(settings), together=together),
    )


def _outside(settings: Settings) -> ListenerSettings:
    """What the attested listener allows. Its places are its own: clients from outside take none of the enclave's."""
    return replace(listener_settings(settings, OnlyFrom(lambda: settings.transport.parent_cid)), peers_are_proxies=True)


def _exported(request: Request) -> bytes | None:
    """What identifies the connection of a request for one of our own pages."""
    return exported_of(request.channel.transport)


class EnclaveRole:
    """The enclave daemon: see `nitroproxy.daemon.role.Role`."""

    name = HOP

    def processes(self, settings: Settings) -> int:
        """See `Role`."""
        return settings.enclave.processes

    def drain_delay(self, settings: Settings) -> float:
        """See `Role`: none, as no load balancer sends clients here."""
        return 0.0

    def check(self, settings: Settings) -> None:
        """See `Role`: the sockets that it has to be given."""
        check_sockets(settings)

    def process(self, reactor: Any, settings: Settings, output: int, worker: int | None) -> Process:
        """See `Role`."""
        deadlines = Deadlines(reactor)
        logs = ShippedLog(reactor, settings, deadlines) if settings.logging.port else None
        takers = [logs.shipper.take] if logs is not None else []
        instruments = instruments_of(reactor, "enclave", settings, output, worker, takers)
        at_end: list[Callable[[], object]] = []
        if logs is not None:
            instruments.metrics.sources += logs.sources
            at_end = [logs.shipper.flush, logs.shipper.stop]
        if not worker:
            instruments.metrics.sources.append(machine_memory())
        return Process(reactor, settings, deadlines, instruments, limits_descriptors=not worker, at_end=at_end)

    def servers(self, reactor: Any, settings: Settings) -> Stages:
        """See `Role`: where the host brings what comes from outside, which stops first, since to answer it the
        application may need the proxy; where the host and where applications in the enclave find the proxy."""
        enclave, port = settings.enclave, settings.ingress.port
        servers = [Server(*hop_server(reactor, settings, "enclave", enclave.port), HOP)]
        if enclave.proxy_port:
            servers.append(Server(*tcp_server(reactor, enclave.proxy_interface, enclave.proxy_port), HOP))
        given = [activated(reactor, name, "enclave-init's") for name in transparent_listeners(settings)]
        servers += [Server(*server, HOP) for server in given if server is not None]
        forwards = [address_and_port(forward.listen) for forward in enclave.forwards]
        servers += [Server(*tcp_server(reactor, host, port), HOP) for host, port in forwards]
        ingress = inside_servers(reactor, settings)
        if settings.attestation.device is not None and port:
            ingress.append(Server(*hop_server(reactor, settings, "enclave", port), HOP))
        return [ingress, servers] if ingress else [servers]

    def serving(
        self, process: Process, settings: Settings, whole: AllProcesses | None, ask_once: AskOnce
    ) -> EnclaveProxy:
        """See `Role`."""
        return EnclaveProxy(process, settings, whole, ask_once)

    def once(self, process: Process, settings: Settings, rest: Rest) -> EnclaveOnce:
        """See `Role`."""
        return EnclaveOnce(process, settings)
