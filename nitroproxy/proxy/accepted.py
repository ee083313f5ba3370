"""What a listener is to the connections that it has accepted, and what it allows their clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.interfaces import IAddress

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Limits
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.exchange import ExchangeSettings
from nitroproxy.proxy.record import Observer, Record
from nitroproxy.proxy.route import Router
from nitroproxy.sockets.hangup import SocketTable


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """What a listener allows its clients. Times in seconds.

    :ivar connections: open at once; one more is answered 503.
    :ivar header_timeout: from a head's first byte to its last.
    :ivar idle_timeout: between requests, and without a byte either way in a tunnel.
    :ivar buffer_bytes: most that one connection holds of a body, each way.
    :ivar accepts: whether a peer may use the listener at all.
    :ivar make_traceparent: give a W3C trace context to requests that come without one.
    """

    connections: int = 4000
    header_timeout: float = 10.0
    idle_timeout: float = 60.0
    connect_timeout: float = 10.0
    buffer_bytes: int = 65536
    limits: Limits = field(default_factory=Limits)
    exchange: ExchangeSettings = field(default_factory=ExchangeSettings)
    accepts: Callable[[IAddress], bool] = lambda address: True
    make_traceparent: bool = False


class Accepted(Protocol):
    """A connection, to its listener.

    :ivar peer: who is at the other end.
    :ivar record: of the request at hand, None between requests.
    """

    peer: IAddress
    record: Record | None

    @property
    def in_use(self) -> bool:
        """A request comes or is under way, its response may not have left, or it is a tunnel not kept in reserve."""

    def look_for_hangup(self, sockets: SocketTable) -> None:
        """End what is under way for a client that has gone unseen: nothing is read from it at present, or it has
        closed its TCP connection, which looks like a half-close."""

    def drain(self) -> None:
        """End the connection: now between requests, after the response under way, a tunnel when it falls silent."""

    def abort(self) -> None:
        """End the connection at once, visibly."""

    def cut_off(self, error: ProxyError) -> None:
        """Abort it; what is under way on it has failed with *error*."""

    def end_refused_tunnel(self) -> bool:
        """End the tunnel if this is one and the router now in force refuses it; whether it did."""


class Listening(Protocol):
    """A listener, to its connections.

    :ivar hop: the role's name in Proxy-Status, Via and problem documents; *pseudonym* its name in Via.
    :ivar settings: may be replaced while running; connections that are open take it over with their next request.
    :ivar draining: no connection takes another request.
    """

    hop: str
    pseudonym: bytes
    router: Router
    settings: ListenerSettings
    deadlines: Deadlines
    observer: Observer
    draining: bool

    def admit(self, connection: Accepted) -> Kind | None:
        """Count *connection* in; the reason for which it must not be served, or None."""

    def lost(self, connection: Accepted) -> None:
        """*connection* has ended."""
