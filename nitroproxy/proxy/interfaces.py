"""How the parts of the engine see each other: a client's connection, what carries its requests out, and the listener
that accepted it. Interfaces only, so that the modules behind them need not import each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IAddress

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.backpressure import Backpressure, Throttle
from nitroproxy.proxy.deadlines import Alarm, Deadlines
from nitroproxy.proxy.observer import Observer
from nitroproxy.proxy.opening import Opening
from nitroproxy.proxy.pinned import PinnedConnections
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.response import ResponseWriter
from nitroproxy.proxy.route import Router
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.proxy.trace import ViaName
from nitroproxy.proxy.transport import StreamTransport
from nitroproxy.proxy.tunnel import Side
from nitroproxy.sockets.hangup import SocketTable


class Client(Protocol):
    """A client's connection, as what carries its request out sees it.

    :ivar peer: the other end of the connection.
    :ivar response: writes what this client is answered.
    :ivar pace: how fast it reads that; follows where the response comes from.
    :ivar throttle: stops its request's body; the producer of the connection that this goes to.
    :ivar pinned: the upstream connections that belong to it alone.
    :ivar alarm: for what is waited for on its behalf, one thing at a time.
    """

    transport: StreamTransport
    alarm: Alarm
    peer: IAddress
    response: ResponseWriter
    pace: Backpressure
    throttle: Throttle
    pinned: PinnedConnections

    def take_body(self) -> None:
        """The request's body can be taken now."""

    def answering(self, status: int) -> None:
        """The response's head is about to be written."""

    def send_body(self, data: bytes) -> None:
        """A piece of the response's body, not empty."""

    def exchange_done(self, request_complete: bool) -> None:
        """The whole response has been handed over."""

    def fail(self, error: ProxyError, request_complete: bool) -> None:
        """Answer with the failure, or if a response has begun break it off (never complete it)."""

    def send_problem(self, error: ProxyError, request_complete: bool) -> None:
        """Answer with the failure instead of a response."""

    def check_tunnel(self, address: IAddress) -> None:
        """Check that the policy now in force allows a tunnel over a connection to *address*.

        :raises ProxyError: when it does not.
        """

    def become_tunnel(self, upstream: StreamTransport, join: Callable[[Side], None], rest: bytes) -> None:
        """The head has been written: the connection becomes a tunnel to *upstream*.

        :param join: makes *upstream*'s protocol a side of it.
        :param rest: what has come from *upstream* already.
        """

    def abort(self) -> None:
        """End the connection at once, visibly."""


class ClientExchange(Protocol):
    """What carries a request out for a `Client`: an `Exchange`, a `LocalExchange` or a `ConnectRequest`."""

    @property
    def wants_body(self) -> bool: ...
    def start(self) -> None: ...
    def request_data(self, data: bytes) -> None: ...
    def request_end(self) -> None: ...
    def abandon(self) -> None: ...


class AcceptedConnection(Protocol):
    """A connection, as its listener sees it.

    :ivar peer: the other end.
    :ivar record: of the request at hand, None between requests.
    """

    peer: IAddress
    record: Record | None

    @property
    def in_use(self) -> bool:
        """A request is arriving or under way, its response may not have left yet, or it is a tunnel in use."""

    def look_for_hangup(self, sockets: SocketTable) -> None:
        """End what is under way for a client that has gone unseen: nothing is read from it at present, or it has
        closed its TCP connection, which looks like a half-close."""

    def drain(self) -> None:
        """End the connection: now between requests, after the response under way, a tunnel when it falls silent."""

    def abort(self) -> None:
        """End the connection at once, visibly."""

    def turn_away(self) -> None:
        """Answer 503 and close: the connection has no place, and no complete head has come."""

    def cut_off(self, error: ProxyError) -> None:
        """Abort it; what is under way on it has failed with *error*."""

    def end_refused_tunnel(self) -> bool:
        """End the tunnel if this is one and the router now in force refuses it; whether it did."""


class Listener(Protocol):
    """A listener, as its connections see it.

    :ivar hop: the role's name in Proxy-Status, problem documents and the Via of responses.
    :ivar via_name: its name in the Via of requests.
    :ivar opening: how its connections begin.
    :ivar settings: may be replaced while running; connections that are open take it over with their next request.
    :ivar draining: no connection takes another request.
    """

    hop: str
    via_name: ViaName
    opening: Opening
    router: Router
    settings: ListenerSettings
    deadlines: Deadlines
    observer: Observer
    draining: bool

    def admit(self, connection: AcceptedConnection) -> Kind | None:
        """Count *connection* in, with a place or into the reserve; the reason for which it must not be served, or
        None."""

    def head_complete(self, connection: AcceptedConnection) -> None:
        """*connection* has sent a request."""

    def is_reserved(self, connection: AcceptedConnection) -> bool:
        """Whether *connection* is in the reserve: it closes after its response."""

    def give_place(self, client: Client) -> None:
        """Give *client* a place, unless it has one: its request is not for a page of our own.

        :raises ProxyError: when there is none, with `Kind.CONNECTION_LIMIT_REACHED`.
        """

    def lost(self, connection: AcceptedConnection) -> None:
        """*connection* has ended."""
