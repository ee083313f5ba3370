"""Writes the responses of one client's connection: their framing towards this client, and the fields this hop adds."""

from __future__ import annotations

from typing import Final

from twisted.web.http import datetimeToString

from nitroproxy.errors import ProxyError
from nitroproxy.http1.chunked import LAST_CHUNK, encode_chunk
from nitroproxy.http1.headers import HOP_BY_HOP, end_to_end
from nitroproxy.http1.messages import CHUNKED, UNTIL_CLOSE, Headers, Request, Response
from nitroproxy.http1.writer import reason_phrase, response_head
from nitroproxy.proxy.browser import sandbox_for
from nitroproxy.proxy.location import through_proxy
from nitroproxy.proxy.pinned import offers_login
from nitroproxy.proxy.problem import problem
from nitroproxy.proxy.trace import REQUEST_ID
from nitroproxy.proxy.transport import StreamTransport

_OURS: Final = frozenset({REQUEST_ID.lower()})
#: Beside the hop-by-hop fields, those that are written anew.
_NOT_PASSED_ON: Final = HOP_BY_HOP | _OURS | {b"content-length"}
#: twisted.web's own fields that a local page does without.
_NOT_OF_LOCAL: Final = _OURS | {b"x-request-id", b"connection", b"server"}
#: Our own pages are not to be framed, guessed at or used by another site.
_PAGE_SAFETY: Final[Headers] = [
    (b"X-Frame-Options", b"DENY"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
]


class ResponseWriter:
    """Writes to *transport*; one response after the other, each begun with `for_request`.

    Every final response and every 101 carries the request's id in `trace.REQUEST_ID`, and in ``X-Request-Id`` where
    the destination has sent none: its own is its client's.

    :param hop: the role's name in Proxy-Status, Via and problem documents.
    :ivar begun: the head of the response at hand has been written.
    :ivar close_after: the connection ends with the response at hand, which says so.
    :ivar rewrite_location: redirects of the request at hand are to lead through this proxy: it is in path form.
    :ivar silent: it writes nothing: a failure can only end the connection.
    """

    silent = False

    def __init__(self, transport: StreamTransport, hop: str) -> None:
        self._transport = transport
        self._hop = hop
        self._via = b"1.1 " + hop.encode("ascii")
        self._request: Request | None = None
        self._request_id = b""
        self._chunked = False
        self.begun = False
        self.close_after = False
        self.rewrite_location = False

    def for_request(self, request: Request | None, request_id: bytes) -> None:
        """Turn to the response to *request*; None when what came was none."""
        self._request = request
        self._request_id = request_id
        self._chunked = False
        self._sandbox: Headers = []
        self.begun = False
        if request is not None:
            self._sandbox = sandbox_for(request)
            if not request.keep_alive:
                self.close_after = True

    def leave_as_is(self) -> None:
        """The response at hand comes from the application that the listener serves: it leads where it says."""
        self._sandbox = []
        self.rewrite_location = False

    def interim(self, response: Response) -> None:
        """Pass a 1xx on (RFC 9110 section 15.2), unless the client would not understand it."""
        if self._request is not None and not self._request.http10:
            self._transport.write(response_head(response.status, response.reason, _of_interim(response)))

    def go_on(self) -> None:
        """Tell a client that asked (Expect: 100-continue) to send its body."""
        self._transport.write(response_head(100, b"Continue", []))

    def head(self, response: Response, data: bytes = b"") -> None:
        """Begin a response that was forwarded, with what is here of its body."""
        assert self._request is not None
        headers = end_to_end(response.fields.in_order, response.connection_options, _NOT_PASSED_ON)
        if response.content_length not in (CHUNKED, UNTIL_CLOSE):
            if response.declared_length is not None and response.status != 204:
                headers.append((b"Content-Length", b"%d" % response.declared_length))
        elif self._request.http10:
            self.close_after = True
        else:
            self._chunked = True
            headers.append((b"Transfer-Encoding", b"chunked"))
        if self.rewrite_location and b"location" in response.fields.values:
            headers = self._lead_back(headers)
        headers += self._sandbox
        headers.append((b"Via", self._via))
        if response.status == 401 and offers_login(response.fields):
            # Without it a client must not log a connection in through a proxy (RFC 4559 section 6).
            headers += [(b"Proxy-Support", b"Session-Based-Authentication"), (b"Connection", b"Proxy-Support")]
        if response.fields.get(b"date") is None:
            headers.append((b"Date", datetimeToString()))  # RFC 9110 section 6.6.1
        self._write_head(response.status, response.reason, headers, _has_id(response), data)

    def _lead_back(self, headers: Headers) -> Headers:
        request = self._request
        assert request is not None
        return [
            (name, through_proxy(value, request.method, request.target) if name.lower() == b"location" else value)
            for name, value in headers
        ]

    def local_head(self, status: int, reason: bytes, headers: Headers) -> None:
        """Begin the response of a local resource, which frames its body itself."""
        self._write_head(status, reason, _without(headers, _NOT_OF_LOCAL) + _PAGE_SAFETY)

    def body(self, data: bytes) -> None:
        """A piece of the body, not empty."""
        if self._chunked:
            self._transport.writeSequence(encode_chunk(data))
        else:
            self._transport.write(data)

    def end(self) -> None:
        """The body is complete."""
        if self._chunked:
            self._transport.write(LAST_CHUNK)

    def problem(self, error: ProxyError, request_complete: bool) -> None:
        """Answer with the failure instead.

        :param request_complete: the request has been read to its end; if not, the connection cannot be used again.
        """
        headers, body = problem(error, self._hop, self._request_id.decode("ascii"))
        headers.insert(0, (b"Date", datetimeToString()))
        if not request_complete:
            self.close_after = True
        with_body = self._request is None or self._request.method != b"HEAD"
        status = error.kind.status
        self._write_head(status, reason_phrase(status), headers, data=body if with_body else b"")

    def switching(self, response: Response) -> None:
        """Pass a 101 on: from here on the connection is no longer HTTP."""
        protocols = [header for header in response.fields.in_order if header[0].lower() == b"upgrade"]
        headers = [*_of_interim(response), (b"Connection", b"upgrade"), *protocols, *self._ids(_has_id(response))]
        self._transport.write(response_head(101, response.reason, headers))

    def connected(self) -> None:
        """Answer CONNECT: from here on the connection is a tunnel (RFC 9110 section 9.3.6)."""
        self.begun = True
        self._transport.write(response_head(200, b"Connection established", self._ids()))

    def _ids(self, has_id: bool = False) -> Headers:
        ours = (REQUEST_ID, self._request_id)
        return [ours] if has_id else [ours, (b"X-Request-Id", self._request_id)]

    def _write_head(
        self, status: int, reason: bytes, headers: Headers, has_id: bool = False, data: bytes = b""
    ) -> None:
        self.begun = True
        headers += self._ids(has_id)
        if self.close_after:
            headers.append((b"Connection", b"close"))
        elif self._request is not None and self._request.http10:
            headers.append((b"Connection", b"keep-alive"))
        head = response_head(status, reason, headers)
        if data:
            head += b"".join(encode_chunk(data)) if self._chunked else data
        self._transport.write(head)


def _of_interim(response: Response) -> Headers:
    """The fields of a 1xx that go on: it has no body, so nothing may say that it has (RFC 9110 section 8.6)."""
    return end_to_end(response.fields.in_order, response.connection_options, _NOT_PASSED_ON)


def _has_id(response: Response) -> bool:
    """Whether *response* brings an X-Request-Id that goes on to the client."""
    return b"x-request-id" in response.fields.values and b"x-request-id" not in response.connection_options


def _without(headers: Headers, names: frozenset[bytes]) -> Headers:
    return [header for header in headers if header[0].lower() not in names]
