"""A request for the proxy itself: a twisted.web resource tree answers it, and the engine writes the response.

twisted.web's `Request` is used as it is. `LocalExchange` stands in for its HTTP channel, and looks like an `Exchange`
to the client's connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers as WebHeaders
from twisted.web.server import Request as WebRequest

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Headers, Request
from nitroproxy.proxy.interfaces import Client
from nitroproxy.proxy.problem import METHODS
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Local
from nitroproxy.proxy.trace import REQUEST_ID

#: Bytes of the path of a page of ours.
_LONGEST_PATH: Final = 256


class LocalExchange:
    """One request for a local resource.

    Of the channel that a twisted.web `Request` speaks to it has `site`, `transport`, `writeHeaders`, `write`,
    `writeSequence`, `registerProducer`, `unregisterProducer`, `requestDone`, `loseConnection`, `getPeer`, `getHost` and
    `isSecure`: all that Twisted 26.10 calls, except when it parses forms, which is switched off.

    twisted.web makes many times a target's bytes of its path and query, and keeps that until the page is made. So it is
    given no long path, and a query only where the page has one.

    :param timeout: seconds for the request's body to arrive.
    :raises ProxyError: `Kind.NOT_FOUND` for a path longer than any page's.
    """

    def __init__(self, client: Client, request: Request, route: Local, record: Record, timeout: float) -> None:
        self.site = route.site
        self.transport = client.transport
        self._client = client
        self._request = request
        self._record = record
        self._path = request.target if route.query else request.target.partition(b"?")[0]
        if len(self._path) > _LONGEST_PATH:
            raise ProxyError(Kind.NOT_FOUND, f"no page of this proxy has a path of over {_LONGEST_PATH} bytes")
        self._longest_body = route.longest_body
        self._timeout = timeout
        self._body = bytearray()
        self._web_request: WebRequest | None = None
        self.wants_body = True

    def start(self) -> None:
        """Render, or wait until the request's body is over."""
        if not self._request.content_length:
            self.request_end()
            return
        if self._request.content_length > self._longest_body:
            raise self._too_large()
        if self._request.expects_continue:
            self._client.response.go_on()
        self._client.alarm.set(self._timeout, self._time_out)
        self._client.take_body()

    def request_data(self, data: bytes) -> None:
        """A piece of the request's body.

        :raises ProxyError: when it is longer than the resource takes.
        """
        if len(self._body) + len(data) > self._longest_body:
            raise self._too_large()
        self._body += data

    def _too_large(self) -> ProxyError:
        return ProxyError(Kind.CONTENT_TOO_LARGE, f"this page takes a body of at most {self._longest_body} bytes")

    def _time_out(self) -> None:
        late = ProxyError(Kind.REQUEST_TIMEOUT, f"no complete request body within {self._timeout:g} seconds")
        self.abandon()
        self._client.send_problem(late, False)

    def request_end(self) -> None:
        """The request is complete: find its resource and render it."""
        self._client.alarm.clear()
        web_request = self._web_request = WebRequest(self, parsePOSTFormSubmission=False)
        for name, value in self._request.fields.in_order:
            web_request.requestHeaders.addRawHeader(name, _text(value))
        web_request.requestHeaders.setRawHeaders(REQUEST_ID, [self._record.request_id])
        # With a length of its own twisted.web would put a larger body into a file, and there may be no place for one.
        web_request.gotLength(0)
        web_request.handleContentChunk(bytes(self._body))
        self._body.clear()
        version = b"HTTP/1.0" if self._request.http10 else b"HTTP/1.1"
        web_request.requestReceived(self._request.method, self._path, version)

    def abandon(self) -> None:
        """The client has gone, or has its answer already."""
        self._client.alarm.clear()
        web_request, self._web_request = self._web_request, None
        if web_request is not None:
            web_request.connectionLost(Failure(ConnectionDone()))

    # The channel, as a twisted.web Request uses it.

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: WebHeaders) -> None:
        """Begin the response."""
        fields: Headers = [(name, value) for name, values in headers.getAllRawHeaders() for value in values]
        self._client.answering(int(code))
        self._client.response.local_head(int(code), reason, fields)

    def write(self, data: bytes) -> None:
        """A piece of the response, already framed."""
        if self._web_request is not None:
            self.transport.write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Pieces of the response, already framed."""
        if self._web_request is not None:
            self.transport.writeSequence(iovec)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """The response comes from *producer*, at the pace at which the client reads.

        :raises ValueError: for a pull producer; no page of ours has one.
        """
        if not streaming:
            raise ValueError("a page's producer must be a push producer")
        self._client.pace.follow(producer)

    def unregisterProducer(self) -> None:
        """The producer has nothing more."""
        self._client.pace.follow(None)

    def requestDone(self, request: WebRequest) -> None:
        """The response is complete."""
        if self._web_request is not None:
            self._web_request = None
            self._client.exchange_done(True)

    def loseConnection(self) -> None:
        """A resource gives up."""
        self._client.abort()

    def getPeer(self) -> IAddress:
        """The client's address."""
        return self.transport.getPeer()

    def getHost(self) -> IAddress:
        """The listener's address."""
        return self.transport.getHost()

    def isSecure(self) -> bool:
        """Local pages are not served over TLS."""
        return False


class OptionsAnswer:
    """The answer to OPTIONS for this hop itself (Max-Forwards: 0; RFC 9110 section 7.6.2)."""

    #: A body is not read: the connection ends instead.
    wants_body = False

    def __init__(self, client: Client, request: Request) -> None:
        self._client = client
        self._complete = not request.content_length

    def start(self) -> None:
        """Answer with the methods that are forwarded."""
        if not self._complete:
            self._client.response.close_after = True
        self._client.answering(204)
        self._client.response.local_head(204, b"No Content", [(b"Allow", METHODS)])
        self._client.exchange_done(self._complete)

    def request_data(self, data: bytes) -> None:
        """There is none: see `wants_body`."""

    def request_end(self) -> None:
        """It changes nothing: the answer has been sent."""

    def abandon(self) -> None:
        """Nothing is under way."""


def _text(value: bytes) -> bytes:
    """A field's value as UTF-8, as which pages read it; other bytes are replaced (obs-text, RFC 9110 section 5.5)."""
    return value if value.isascii() else value.decode("utf-8", "replace").encode("utf-8")
