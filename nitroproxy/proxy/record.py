"""What one exchange was: filled in while it happens, handed to an `observer` when it is over.

Holds nothing secret: no path, query string, header or body.
"""

from __future__ import annotations

import enum
from typing import Protocol

from twisted.internet.interfaces import IAddress

from nitroproxy.errors import Kind, ProxyError


class Counted(Protocol):
    """One side of a tunnel: what has come from it so far."""

    bytes: int


class End(enum.StrEnum):
    """What ended an exchange or a tunnel: a closed set, for the access log and as a metric label."""

    #: The whole response went to the client.
    COMPLETE = "complete"
    #: It failed; `Record.error` says how. That includes a drain and a changed policy that cut it off.
    FAILED = "failed"
    #: The client left before its response was complete.
    CLIENT_GONE = "client_gone"
    #: The client kept its connection but took nothing of its response, or of what a tunnel had for it.
    CLIENT_STOPPED_READING = "client_stopped_reading"

    # Of tunnels: which end came first, and how.
    CLIENT_CLOSED = "client_closed"
    CLIENT_RESET = "client_reset"
    UPSTREAM_CLOSED = "upstream_closed"
    UPSTREAM_RESET = "upstream_reset"
    UPSTREAM_STOPPED_READING = "upstream_stopped_reading"
    #: Nothing moved for `tunnel_timeout`; in a half-closed tunnel, for `idle_timeout`.
    TUNNEL_TIMEOUT = "tunnel_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    #: It was quiet while the listener drained.
    DRAINED = "drained"


class Record:
    """One exchange or tunnel. Times are the reactor's clock, in seconds; sizes are bytes of bodies or of a tunnel.

    :ivar request_id: the id that travels from hop to hop.
    :ivar traceparent: the W3C trace context that came with the request or was made here, empty if there is none.
    :ivar peer: the client's address.
    :ivar certified: the client has proven itself with a certificate that the listener's TLS accepts.
    :ivar scheme: ``https`` or ``http``, of where it went; of a CONNECT, as of what names nothing, ``https``.
    :ivar host: where it went, with *port*; empty for the proxy's own pages and for requests that named nothing usable.
    :ivar status: of the response that the client got; 0 when it left before.
    :ivar error: the kind of failure that ended it, or None; *detail* says more and *found_by* which hop found it.
    :ivar passed_on: the hop that found a failure and its Proxy-Status token, when the forwarded response reports
        another hop's failure; None for any other response.
    :ivar sides: of the tunnel that the exchange became: the client's and the other; None if it became none.
    :ivar client_gone: the client left, or stopped reading, before its response was complete.
    :ivar end: what ended it, where neither *error* nor *client_gone* says so; see `ended_by`.
    :ivar opened_by: the request id for which the upstream connection was made: its own unless one was reused.
    :ivar connected: when there was a connection to the next hop; 0.0 if there never was.
    :ivar answered: when the response's head went to the client; 0.0 if it never did.
    """

    __slots__ = (
        "answered",
        "certified",
        "client_gone",
        "connected",
        "detail",
        "end",
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
        self.certified = False
        self.scheme = "https"
        self.host = ""
        self.port = 0
        self.status = 0
        self.error: Kind | None = None
        self.detail = ""
        self.found_by = ""
        self.passed_on: tuple[str, str] | None = None
        self.client_gone = False
        self.end: End | None = None
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

    @property
    def ended_by(self) -> End:
        """What ended it; to be read when it is over."""
        if self.error is not None:
            return End.FAILED
        if self.end is not None:
            return self.end
        return End.CLIENT_GONE if self.client_gone else End.COMPLETE

    def failed(self, error: ProxyError, hop: str) -> None:
        """Note what went wrong; *hop* found it unless the error names another."""
        self.error = error.kind
        self.detail = error.detail
        self.found_by = error.hop or hop
