"""What the two daemons share: the configuration turned into endpoints between host and enclave, into the engine's
settings and into instruments.

`host.components` and `enclave.components` build their parts with it. Nothing else imports it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    serverFromString,
)
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from nitroproxy import __version__
from nitroproxy.config.kinds import RESPONSE_TIMEOUT
from nitroproxy.config.schema import Settings
from nitroproxy.config.traffic import Limits as LimitSettings
from nitroproxy.daemon.enclave_record import RunningEnclave
from nitroproxy.http1.messages import Limits
from nitroproxy.policy import ByPattern
from nitroproxy.proxy.reserve import SIZE
from nitroproxy.proxy.settings import ExchangeSettings, ListenerSettings, PoolSettings
from nitroproxy.target import normalize_host
from nitroproxy.telemetry.instruments import Instruments
from nitroproxy.vsock.address import VsockAddress
from nitroproxy.vsock.endpoints import VsockClientEndpoint, VsockServerEndpoint
from nitroproxy.vsock.hybrid import HybridClientEndpoint

#: Connections that may wait to be accepted; on vsock a full queue refuses at once.
_BACKLOG: Final = 1024

#: The name of the gateway's socket in its unit (FileDescriptorName=).
ACTIVATED: Final = "gateway"

#: Fields that the hops of one request add to it or to its response, at most, and the bytes of one of them.
HOP_FIELDS: Final = 16
_FIELD_BYTES: Final = 256

#: The part of the configured time for connections and responses that the enclave waits, that the relay waits, and that
#: one hop waits for the connection to the next: the hop nearer to the fault gives up first, and reports it.
ENCLAVE_PATIENCE: Final = 0.95
RELAY_PATIENCE: Final = 0.9
_HOP_PATIENCE: Final = 0.9

#: How much longer than the enclave's longest wait the relay bears silence in a tunnel: what is in there, a request that
#: waits for its response or a silent event stream, is the enclave's to end, with the right reason.
_CARRIER_PATIENCE: Final = 1.1

Party = Literal["host", "enclave"]


def hop_server(reactor: Any, settings: Settings, party: Party, port: int) -> tuple[IStreamServerEndpoint, str]:
    """Where *party* listens for the other, and the name of that place."""
    if _on_vsock(settings, party, listening=True):
        return VsockServerEndpoint(reactor, port, backlog=_BACKLOG), f"vsock port {port}"
    path = _socket_path(settings, party, port)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    endpoint = UNIXServerEndpoint(reactor, str(path), backlog=_BACKLOG, mode=0o600, wantPID=True)
    return endpoint, str(path)


def hop_client(reactor: Any, settings: Settings, party: Party, port: int) -> tuple[IStreamClientEndpoint, str]:
    """How the other reaches *party*, and the name of that place."""
    timeout = settings.limits.connect_timeout * _HOP_PATIENCE
    if _on_vsock(settings, party, listening=False):
        cid = settings.enclave.cid if party == "enclave" else settings.transport.parent_cid
        if not cid:
            running = RunningEnclave(Path(settings.transport.directory))
            return RunningEnclaveEndpoint(reactor, running, port, timeout), f"vsock port {port}"
        return VsockClientEndpoint(reactor, cid, port, timeout=timeout), f"vsock {cid}:{port}"
    if settings.transport.kind == "hybrid":
        place = str(_hybrid_socket(settings))
        return HybridClientEndpoint(reactor, place, port, timeout=timeout), f"{place}, port {port}"
    path = _socket_path(settings, party, port)
    return UNIXClientEndpoint(reactor, str(path), timeout=timeout), str(path)


@implementer(IStreamClientEndpoint)
class RunningEnclaveEndpoint:
    """Connects to the enclave that runs at the time, whose CID is not configured.

    :param timeout: seconds.
    """

    def __init__(self, reactor: Any, running: RunningEnclave, port: int, timeout: float) -> None:
        self._reactor = reactor
        self._running = running
        self._port = port
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; fails with `ConnectError`, at once when no enclave is known to run."""
        cid = self._running()
        if cid is None:
            return fail(ConnectError(string=self._running.problem))
        return VsockClientEndpoint(self._reactor, cid, self._port, timeout=self._timeout).connect(protocolFactory)


def enclave_cid(settings: Settings) -> Callable[[], int | None]:
    """Gives the CID of the enclave: the configured one, or that of the one that runs at the time, if one does."""
    cid = settings.enclave.cid
    return (lambda: cid) if cid else RunningEnclave(Path(settings.transport.directory))


def _on_vsock(settings: Settings, party: Party, *, listening: bool) -> bool:
    """Whether the end at hand is AF_VSOCK: with "hybrid" that of the enclave is, and only the host's is not."""
    ours_is_enclave = (party == "enclave") == listening
    return settings.transport.kind == "vsock" or (settings.transport.kind == "hybrid" and ours_is_enclave)


def _hybrid_socket(settings: Settings) -> Path:
    return Path(settings.transport.directory) / "vsock.sock"


def _socket_path(settings: Settings, party: Party, port: int) -> Path:
    if settings.transport.kind == "hybrid":
        return Path(f"{_hybrid_socket(settings)}_{port}")
    return Path(settings.transport.directory) / party / f"{port}.sock"


def tcp_server(reactor: Any, interface: str, port: int) -> tuple[IStreamServerEndpoint, str]:
    """A TCP listener, and its name."""
    kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    shown = f"[{interface}]" if ":" in interface else interface
    return kind(reactor, port, backlog=_BACKLOG, interface=interface), f"{shown}:{port}"


def gateway_server(reactor: Any, settings: Settings) -> tuple[IStreamServerEndpoint, str]:
    """Where the gateway listens: at the socket that systemd holds for it if there is one, otherwise at its own."""
    given = activated(reactor, ACTIVATED)
    return given or tcp_server(reactor, settings.host_proxy.interface, settings.host_proxy.port)


def activated(reactor: Any, name: str, whose: str = "systemd's") -> tuple[IStreamServerEndpoint, str] | None:
    """The TCP socket that was given to the process under *name* (FileDescriptorName=), and its name in messages; None
    without.

    :param whose: who has given it.
    """
    descriptor = activated_socket(reactor, name)
    if descriptor is None:
        return None
    with socket.socket(fileno=os.dup(descriptor)) as listening:
        family, place = listening.family, listening.getsockname()
    return AdoptedStreamServerEndpoint(reactor, descriptor, family), f"{whose} socket {place[0]}:{place[1]}"


def activated_socket(reactor: Any, name: str) -> int | None:
    """The descriptor of the socket that was given to the process under *name*, if one was (sd_listen_fds(3))."""
    try:
        # Through Twisted, which removes LISTEN_PID from the environment when its endpoints are imported.
        given: Any = serverFromString(reactor, f"systemd:domain=INET:name={name}")
    except KeyError:
        return None
    descriptor: int = given.fileno
    return descriptor


def instruments_of(
    reactor: Any,
    role: str,
    settings: Settings,
    output: int,
    worker: int | None,
    takers: Sequence[Callable[[Mapping[str, Any]], object]] = (),
) -> Instruments:
    """What watches a process of a daemon. See `Instruments` for *output*, *worker* and *takers*."""
    logging = settings.logging
    return Instruments(
        reactor,
        role,
        __version__,
        level=logging.level,
        form=logging.format,
        access=logging.access,
        output=output,
        worker=worker,
        takers=takers,
    )


class OnlyFrom:
    """Accepts vsock connections from one CID, and all connections of other families, which have guards of their own.

    :param cid: gives the CID now; while it gives None, no vsock connection is accepted.
    """

    def __init__(self, cid: Callable[[], int | None]) -> None:
        self._cid = cid

    def __call__(self, address: IAddress) -> bool:
        return not isinstance(address, VsockAddress) or address.cid == self._cid()


def listener_settings(
    settings: Settings,
    accepts: Callable[[IAddress], bool] = lambda address: True,
    slack: int = 0,
    patience: float = 1.0,
) -> ListenerSettings:
    """The configuration's limits as a listener needs them. See `head_limits` for *slack*.

    :param patience: the part of the configured time to wait for connections and responses.
    """
    limits = settings.limits
    return ListenerSettings(
        connections=limits.connections,
        header_timeout=limits.header_timeout,
        idle_timeout=limits.idle_timeout,
        tunnel_timeout=limits.tunnel_timeout,
        connect_timeout=limits.connect_timeout * patience,
        buffer_bytes=limits.buffer_bytes,
        make_traceparent=settings.logging.make_traceparent,
        limits=head_limits(limits, slack),
        accepts=accepts,
        names=frozenset(map(normalize_host, settings.host_proxy.names)),
        rewrite_location=settings.host_proxy.rewrite_location,
        exchange=ExchangeSettings(
            response_timeout=response_timeouts(limits, patience),
            idle_timeout=limits.idle_timeout,
            tunnel_timeout=limits.tunnel_timeout,
            min_body_rate=limits.min_body_rate,
            max_retries=settings.host_proxy.max_retries,
            retry_delay=settings.host_proxy.retry_delay,
        ),
    )


def relay_settings(settings: Settings) -> ListenerSettings:
    """The same for the relay, whose tunnels carry the enclave's requests."""
    limits = settings.limits
    own = listener_settings(settings, OnlyFrom(enclave_cid(settings)), HOP_FIELDS, RELAY_PATIENCE)
    longest = max(limits.tunnel_timeout, limits.idle_timeout, *response_timeouts(limits).values)
    # Each connection that the enclave serves has one here, a tunnel or a request's; as many again may be idle.
    connections = 2 * enclave_places(settings)
    return replace(own, tunnel_timeout=longest * _CARRIER_PATIENCE, connections=connections)


def response_timeouts(limits: LimitSettings, patience: float = 1.0) -> ByPattern[float]:
    """``limits.response_timeout`` by destination, in seconds, each times *patience*."""
    given = limits.response_timeout
    if not isinstance(given, dict):
        return ByPattern({}, given * patience)
    return ByPattern({pattern: seconds * patience for pattern, seconds in given.items()}, RESPONSE_TIMEOUT * patience)


def enclave_places(settings: Settings) -> int:
    """Connections that the enclave's two listeners serve together: one that has all of its own leaves the other some.
    The way out has room for as many."""
    connections = settings.limits.connections
    return connections + max(1, connections // 4)


def pool_settings(
    limits: LimitSettings, slack: int = 0, patience: float = 1.0, connections: int | None = None
) -> PoolSettings:
    """The configuration's limits as a pool wants them; *slack* and *patience* as for a listener. A connection is given
    up before the next hop gives it up.

    :param connections: that use the pool at a time; None: those of one listener.
    """
    return PoolSettings(
        limits=head_limits(limits, slack),
        connect_timeout=limits.connect_timeout * patience,
        idle_timeout=limits.idle_timeout / 2,
        # A page of our own asks the next hop, also when every place is taken.
        most=(connections or limits.connections) + SIZE,
    )


def head_limits(limits: LimitSettings, slack: int = 0) -> Limits:
    """The configuration's limits as a reader needs them.

    :param slack: how many more fields there may be: between our own hops, as many as the hops before have added.
    """
    standard = Limits()
    return Limits(
        target_bytes=min(standard.target_bytes, limits.header_bytes) + slack * _FIELD_BYTES,
        header_bytes=limits.header_bytes + slack * _FIELD_BYTES,
        header_count=standard.header_count + slack,
    )
