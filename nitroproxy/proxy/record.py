"""What one exchange was, for those who watch: filled in while it happens, handed to an `Observer` when it is over.

Holds nothing secret: no path, query string, header or body.
"""

from __future__ import annotations

from typing import Protocol

from nitroproxy.errors import Kind, ProxyError


class Record:
    """One exchange or tunnel. Times are the reactor's clock, in seconds; sizes are bytes of bodies or of a tunnel.

    :ivar request_id: the id that travels from hop to hop.
    :ivar traceparent: the W3C trace context that came with the request or was made here, empty if there is none.
    :ivar host: where it went, with *port*; empty for the proxy's own pages and for requests that named nothing usable.
    :ivar status: what the client was answered; 0 when it left before.
    :ivar error: the kind of failure that ended it, or None; *detail* says more and *found_by* which hop found out.
    :ivar client_gone: the client left before its response was complete.
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
        "port",
        "received",
        "request_id",
        "sent",
        "started",
        "status",
        "traceparent",
        "tunnel",
    )

    def __init__(self, started: float, request_id: bytes, method: bytes = b"") -> None:
        self.started = started
        self.request_id = request_id
        self.method = method
        self.traceparent = b""
        self.host = ""
        self.port = 0
        self.status = 0
        self.error: Kind | None = None
        self.detail = ""
        self.found_by = ""
        self.client_gone = False
        self.opened_by = b""
        self.connected = 0.0
        self.answered = 0.0
        self.received = 0
        self.sent = 0
        self.tunnel = False

    def failed(self, error: ProxyError, hop: str) -> None:
        """Note what went wrong; *hop* found out unless the error says otherwise."""
        self.error = error.kind
        self.detail = error.detail
        self.found_by = error.hop or hop


class Observer(Protocol):
    """Told what happens on a listener."""

    def opened(self) -> None:
        """A connection was accepted."""

    def closed(self) -> None:
        """A connection has ended."""

    def refused(self, kind: Kind) -> None:
        """A connection was turned away."""

    def began(self, record: Record) -> None:
        """An exchange has begun."""

    def ended(self, record: Record, now: float) -> None:
        """It is over."""


class Unobserved:
    """Nobody watches."""

    def opened(self) -> None:
        """See `Observer`."""

    def closed(self) -> None:
        """See `Observer`."""

    def refused(self, kind: Kind) -> None:
        """See `Observer`."""

    def began(self, record: Record) -> None:
        """See `Observer`."""

    def ended(self, record: Record, now: float) -> None:
        """See `Observer`."""
