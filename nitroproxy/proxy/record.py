"""What one exchange was, for those who watch: filled in while it happens, handed to an `Observer` when it is over.

Holds nothing secret: no path, query string, header or body.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IAddress

from nitroproxy.errors import Kind, ProxyError


class Counted(Protocol):
    """One side of a tunnel: what has come from it so far."""

    bytes: int


class Record:
    """One exchange or tunnel. Times are the reactor's clock, in seconds; sizes are bytes of bodies or of a tunnel.

    :ivar request_id: the id that travels from hop to hop.
    :ivar traceparent: the W3C trace context that came with the request or was made here, empty if there is none.
    :ivar peer: who asked.
    :ivar scheme: ``https`` or ``http``, of where it went; of a CONNECT, as of what names nothing, ``https``.
    :ivar host: where it went, with *port*; empty for the proxy's own pages and for requests that named nothing usable.
    :ivar status: what the client was answered; 0 when it left before.
    :ivar error: the kind of failure that ended it, or None; *detail* says more and *found_by* which hop found out.
    :ivar passed_on: the hop that found a failure and its Proxy-Status token, when the response that was forwarded is
        another hop's word of it; None for any other response.
    :ivar sides: of the tunnel that the exchange became: the client's and the other; None if it became none.
    :ivar client_gone: the client left, or stopped reading, before its response was complete.
    :ivar opened_by: the request id for which the upstream connection was made: its own unless one was reused.
    :ivar connected: when there was a connection to the next hop; 0.0 if there never was.
    :ivar answered: when the response's head went to the client; 0.0 if it never did.
    """

    __slots__ = (
        "answered",
        "client_gone",
        "connected",
        "detail",
        "error",
        "found_by",
        "host",
        "method",
        "opened_by",
        "passed_on",
        "peer",
        "port",
        "received",
        "request_id",
        "scheme",
        "sent",
        "sides",
        "started",
        "status",
        "traceparent",
    )

    def __init__(self, started: float, request_id: bytes, method: bytes = b"") -> None:
        self.started = started
        self.request_id = request_id
        self.method = method
        self.traceparent = b""
        self.peer: IAddress | None = None
        self.scheme = "https"
        self.host = ""
        self.port = 0
        self.status = 0
        self.error: Kind | None = None
        self.detail = ""
        self.found_by = ""
        self.passed_on: tuple[str, str] | None = None
        self.client_gone = False
        self.opened_by = b""
        self.connected = 0.0
        self.answered = 0.0
        self.received = 0
        self.sent = 0
        self.sides: tuple[Counted, Counted] | None = None

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes received from the client and sent to it, until now."""
        if self.sides is None:
            return self.received, self.sent
        client, other = self.sides
        return client.bytes, other.bytes

    def failed(self, error: ProxyError, hop: str) -> None:
        """Note what went wrong; *hop* found out unless the error says otherwise."""
        self.error = error.kind
        self.detail = error.detail
        self.found_by = error.hop or hop


class Observer:
    """Told what happens on a listener. This one watches nothing; others override what they watch."""

    def opened(self) -> None:
        """A connection was accepted."""

    def closed(self) -> None:
        """A connection has ended."""

    def refused(self, kind: Kind, peer: IAddress) -> None:
        """A connection of *peer*'s was turned away."""

    def began(self, record: Record) -> None:
        """An exchange has begun."""

    def switched(self, record: Record) -> None:
        """It has become a tunnel."""

    def ended(self, record: Record, now: float) -> None:
        """It is over."""


class Observers(Observer):
    """Several observers, called one after the other."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def opened(self) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.opened()

    def closed(self) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.closed()

    def refused(self, kind: Kind, peer: IAddress) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.refused(kind, peer)

    def began(self, record: Record) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.began(record)

    def switched(self, record: Record) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.switched(record)

    def ended(self, record: Record, now: float) -> None:
        """See `Observer`."""
        for observer in self._observers:
            observer.ended(record, now)
