"""A client's connection: reads its requests one at a time and writes their responses in order.

States of a connection: between requests (`HEAD`), the request's body moves (`BODY`), all of it has arrived and the
response moves (`RESPONDING`), no longer HTTP (`TUNNEL`), or being closed so that the last response is not lost
(`LINGER`).
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import datetimeToString
from zope.interface import implementer

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.chunked import LAST_CHUNK, encode_chunk
from nitroproxy.http1.headers import names_in_via
from nitroproxy.http1.messages import CHUNKED, UNTIL_CLOSE, Headers, Limits, Request, Response
from nitroproxy.http1.reader import RequestReader
from nitroproxy.http1.writer import reason_phrase, response_head
from nitroproxy.proxy.deadlines import Deadline, Deadlines
from nitroproxy.proxy.exchange import Exchange, ExchangeSettings, as_proxy_error
from nitroproxy.proxy.local import LocalExchange
from nitroproxy.proxy.problem import problem
from nitroproxy.proxy.route import Dial, Forward, Router
from nitroproxy.proxy.transport import StreamTransport, factory_of
from nitroproxy.proxy.tunnel import Side, Tunnel, TunnelProtocol
from nitroproxy.proxy.upstream import UpstreamConnection

_log: Final = Logger()
_REQUEST_ID: Final = re.compile(rb"[0-9A-Za-z._-]{1,64}")
#: Seconds that a client may go on sending to a connection that has had its last response.
_LINGER: Final = 2.0
#: Seconds of silence after which a drain takes a tunnel for one that nobody waits for.
_QUIET: Final = 5.0


class _State(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    RESPONDING = enum.auto()
    TUNNEL = enum.auto()
    LINGER = enum.auto()


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """What a listener allows its clients. Times in seconds.

    :ivar connections: open at once; one more is answered 503.
    :ivar header_timeout: from a head's first byte to its last.
    :ivar idle_timeout: between requests, and without a byte either way in a tunnel.
    :ivar buffer_bytes: most that one connection holds of a body, each way.
    :ivar accepts: whether a peer may use the listener at all.
    """

    connections: int = 4000
    header_timeout: float = 10.0
    idle_timeout: float = 60.0
    connect_timeout: float = 10.0
    buffer_bytes: int = 65536
    limits: Limits = field(default_factory=Limits)
    exchange: ExchangeSettings = field(default_factory=ExchangeSettings)
    accepts: Callable[[IAddress], bool] = lambda address: True


class DownstreamFactory(Factory):
    """Makes the protocol of each connection that a listener accepts.

    :param hop: the role's name in Proxy-Status, Via and problem documents.
    """

    noisy = False

    def __init__(self, hop: str, router: Router, settings: ListenerSettings, deadlines: Deadlines) -> None:
        self.hop = hop
        self.router = router
        self.settings = settings
        self.deadlines = deadlines
        # Unique to this process: a request may well pass two gateways, but never one of them twice.
        self.pseudonym = f"{hop}-{os.urandom(4).hex()}".encode("ascii")
        self.draining = False
        self.connections: set[Downstream] = set()
        self._drained: Deferred[bool] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Downstream | None:  # type: ignore[override]  # sets factory itself
        if addr is not None and not self.settings.accepts(addr):
            _log.warn("{hop}: refused a connection from {peer}", hop=self.hop, peer=addr)
            return None
        return Downstream(self)

    def lost(self, connection: Downstream) -> None:
        """*connection* has ended."""
        self.connections.discard(connection)
        if self._drained is not None and not self.connections:
            self._drained.callback(True)
            self._drained = None

    def drain(self, timeout: float) -> Deferred[bool]:
        """Let the requests under way finish and end every connection.

        :param timeout: seconds after which what is left is aborted.
        :returns: fires with whether all finished in time.
        """
        self.draining = True
        drained: Deferred[bool] = Deferred()
        for connection in list(self.connections):
            connection.drain()
        if not self.connections:
            drained.callback(True)
            return drained
        self._drained = drained
        deadline = self.deadlines.after(timeout, self._abort_rest)
        drained.addCallback(lambda complete: self._forget_deadline(deadline, complete))
        return drained

    @staticmethod
    def _forget_deadline(deadline: Deadline, complete: bool) -> bool:
        deadline.cancel()
        return complete

    def _abort_rest(self) -> None:
        drained, self._drained = self._drained, None
        for connection in list(self.connections):
            connection.abort()
        if drained is not None:
            drained.callback(False)


@implementer(IHalfCloseableProtocol, IPushProducer)
class Downstream(Protocol):
    """One client's connection."""

    factory: DownstreamFactory
    transport: StreamTransport  # type: ignore[assignment]  # Twisted types it as the least it can be

    def __init__(self, factory: DownstreamFactory) -> None:
        self.factory = factory
        self._reader = RequestReader(factory.settings.limits)
        self._state = _State.HEAD
        self._deadline: Deadline | None = None
        self._head_begun = False
        self._request: Request | None = None
        self._exchange: Exchange | LocalExchange | None = None
        self._dialling: Deferred[TunnelProtocol] | None = None
        self._side: Side | None = None
        self._tunnel: Tunnel | None = None
        self._chunked = False
        self._close_after = False
        self._read_ended = False
        self._reading = True
        self._upstream_full = False
        self._advancing = False
        self.request_id = b""

    # The connection's own events.

    def connectionMade(self) -> None:
        settings = self.factory.settings
        self.transport.bufferSize = settings.buffer_bytes // 2  # type: ignore[attr-defined]
        full = len(self.factory.connections) >= settings.connections
        self.factory.connections.add(self)
        if full or self.factory.draining:
            kind = Kind.DRAINING if self.factory.draining else Kind.CONNECTION_LIMIT_REACHED
            self.request_id = _new_request_id()
            self.send_problem(ProxyError(kind, "no more connections are accepted at present"), False)
            return
        self._await_head()

    def dataReceived(self, data: bytes) -> None:
        if self._side is not None:
            self._side.received(data)
        elif self._state is not _State.LINGER:
            self._reader.feed(data)
            self._advance()

    def readConnectionLost(self) -> None:
        """The client has sent all it will; it may still read its response."""
        if self._side is not None:
            self._side.ended()
            return
        self._read_ended = True
        if self._state in (_State.HEAD, _State.LINGER):
            self._close()
        elif self._state is _State.BODY:
            self._drop_exchange()
            self.abort()

    def writeConnectionLost(self) -> None:
        """Our own half-close has been carried out: nothing to do."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._cancel_deadline()
        if self._side is not None:
            self._side.lost(reason)
        self._drop_exchange()
        self.factory.lost(self)

    def drain(self) -> None:
        """End the connection: now between requests, after the response under way, a tunnel when it falls silent."""
        self._close_after = True
        if self._state is _State.HEAD and not self._head_begun:
            self._close()
        elif self._tunnel is not None:
            self._tunnel.end_when_quiet(_QUIET)

    def abort(self) -> None:
        """End the connection at once, visibly."""
        if self._tunnel is not None:
            self._tunnel.abort()
        else:
            self.transport.abortConnection()

    # Reading requests.

    def _await_head(self) -> None:
        self._state = _State.HEAD
        self._head_begun = False
        self._set_deadline(self.factory.settings.idle_timeout, self._close)

    def _advance(self) -> None:
        """Read as far as the state allows. Not re-entered: an exchange that ends in here is noticed by the loop."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._step():
                pass
        except ProxyError as error:
            self._drop_exchange()
            if self._response_begun:
                self.abort()
            else:
                self.request_id = self.request_id or _new_request_id()
                self.send_problem(error, False)
        finally:
            self._advancing = False
        self._update_reading()

    def _step(self) -> bool:
        if self._state is _State.HEAD:
            request = self._reader.read_head()
            if request is None:
                self._head_is_late()
                return False
            self._begin(request)
            return True
        if self._state is _State.BODY:
            exchange = self._exchange
            if exchange is None or not exchange.wants_body:
                return False
            data = self._reader.read_body()
            if data:
                exchange.request_data(data)
            if self._reader.complete and self._state is _State.BODY:
                self._state = _State.RESPONDING
                exchange.request_end()
                return True
        return False

    def _head_is_late(self) -> None:
        if self._reader.buffered and not self._head_begun:
            self._head_begun = True
            timeout = self.factory.settings.header_timeout
            error = ProxyError(Kind.REQUEST_TIMEOUT, f"no complete request head within {timeout:g} seconds")
            self._set_deadline(timeout, lambda: self._refuse_head(error))

    def _refuse_head(self, error: ProxyError) -> None:
        self.request_id = _new_request_id()
        self.send_problem(error, False)

    def _begin(self, request: Request) -> None:
        self._cancel_deadline()
        self._request = request
        self._response_begun = False
        self._state = _State.BODY if request.content_length else _State.RESPONDING
        given = request.get(b"x-request-id")
        self.request_id = given if given and _REQUEST_ID.fullmatch(given) else _new_request_id()
        if not request.keep_alive:
            self._close_after = True
        try:
            if request.method == b"TRACE":
                raise ProxyError(Kind.METHOD_NOT_ALLOWED, "TRACE is not passed on")
            if names_in_via(request.headers, self.factory.pseudonym):
                raise ProxyError(Kind.PROXY_LOOP_DETECTED, "the request's Via says that it has been here")
            route = self.factory.router.route(request)
        except ProxyError as error:
            self.send_problem(error, not request.content_length)
            return
        if isinstance(route, Dial):
            self._dial(route)
            return
        if isinstance(route, Forward):
            self._exchange = Exchange(self, request, route, self.factory.settings.exchange, self.factory.deadlines)
        else:
            self._exchange = LocalExchange(self, request, route.site)
        self._exchange.start()

    def take_body(self) -> None:
        """The exchange can take the request's body now."""
        self._advance()

    # Reading or not: while a body has somewhere to go, and while a head may come.

    def _update_reading(self) -> None:
        if self._state is _State.BODY:
            wanted = self._exchange is not None and self._exchange.wants_body and not self._upstream_full
        elif self._state is _State.RESPONDING:
            wanted = not self._reader.buffered
        else:
            wanted = True
        if wanted != self._reading and not self._read_ended:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def pauseProducing(self) -> None:
        """The upstream connection has enough to send."""
        self._upstream_full = True
        self._update_reading()

    def resumeProducing(self) -> None:
        """The upstream connection has caught up."""
        self._upstream_full = False
        self._update_reading()

    def stopProducing(self) -> None:
        """The upstream connection has gone: the exchange is told by itself."""

    # Writing responses.

    _response_begun = False

    def via(self, http10: bool) -> bytes:
        """The Via member for a message received by this hop (RFC 9110 section 7.6.3)."""
        return (b"1.0 " if http10 else b"1.1 ") + self.factory.pseudonym

    def send_interim(self, response: Response) -> None:
        """Pass a 1xx on (RFC 9110 section 15.2), unless the client would not understand it."""
        if self._request is not None and not self._request.http10:
            headers = [header for header in response.headers if header[0].lower() not in (b"connection", b"upgrade")]
            self.transport.write(response_head(response.status, response.reason, headers))

    def send_head(self, response: Response, headers: Headers) -> None:
        """Begin the response; its framing towards this client is decided here."""
        request = self._request
        assert request is not None
        self._response_begun = True
        self._chunked = False
        if response.content_length in (CHUNKED, UNTIL_CLOSE):
            headers = [header for header in headers if header[0].lower() != b"content-length"]
            if request.http10:
                self._close_after = True
            else:
                self._chunked = True
                headers.append((b"Transfer-Encoding", b"chunked"))
        elif response.status == 204:
            headers = [header for header in headers if header[0].lower() != b"content-length"]
        headers = [header for header in headers if header[0].lower() != b"x-request-id"]
        headers.append((b"Via", self.via(False)))
        self._write_head(response.status, response.reason, headers)

    def send_local_head(self, status: int, reason: bytes, headers: Headers) -> None:
        """Begin the response of a local resource, which frames its body itself."""
        self._response_begun = True
        self._chunked = False
        self._write_head(status, reason, [header for header in headers if header[0].lower() != b"connection"])

    def _write_head(self, status: int, reason: bytes, headers: Headers) -> None:
        headers.append((b"X-Request-Id", self.request_id))
        if self._close_after or self.factory.draining:
            self._close_after = True
            headers.append((b"Connection", b"close"))
        elif self._request is not None and self._request.http10:
            headers.append((b"Connection", b"keep-alive"))
        self.transport.write(response_head(status, reason, headers))

    def send_body(self, data: bytes) -> None:
        """A piece of the response's body, not empty."""
        if self._chunked:
            self.transport.writeSequence(encode_chunk(data))
        else:
            self.transport.write(data)

    def stop_response_flow(self) -> None:
        """The upstream connection no longer produces for this one."""
        self.transport.unregisterProducer()

    def exchange_done(self, request_complete: bool) -> None:
        """The whole response has been handed over."""
        self._exchange = None
        if self._chunked:
            self.transport.write(LAST_CHUNK)
        self._response_done(request_complete)

    def abort_response(self, error: ProxyError) -> None:
        """The response cannot be completed: end the connection so that the client notices (never complete it)."""
        _log.info(
            "{hop}: response {request_id} broken off: {error}",
            hop=self.factory.hop,
            request_id=self.request_id.decode("ascii"),
            error=error,
        )
        self._exchange = None
        self.abort()

    def send_problem(self, error: ProxyError, request_complete: bool) -> None:
        """Answer with the failure instead of a response."""
        self._exchange = None
        request_id = self.request_id.decode("ascii")
        _log.info(
            "{hop}: request {request_id} failed: {error}", hop=self.factory.hop, request_id=request_id, error=error
        )
        headers, body = problem(error, self.factory.hop, request_id)
        headers.insert(0, (b"Date", datetimeToString()))
        if not request_complete:
            self._close_after = True
        self._write_head(error.kind.status, reason_phrase(error.kind.status), headers)
        if self._request is None or self._request.method != b"HEAD":
            self.transport.write(body)
        self._response_done(request_complete)

    def _response_done(self, request_complete: bool) -> None:
        self._request = None
        self._upstream_full = False
        self._response_begun = False
        self.request_id = b""
        if not request_complete:
            self._linger()
        elif self._close_after or (self._read_ended and not self._reader.buffered):
            self._close()
        else:
            self._reader.next_message()
            self._await_head()
            self._advance()  # A pipelined request may be here already.

    # Ending the connection.

    def _close(self) -> None:
        self._cancel_deadline()
        self._state = _State.LINGER
        self.transport.loseConnection()

    def _linger(self) -> None:
        """Close without a reset overtaking the response: stop writing, read and forget what still comes."""
        self._state = _State.LINGER
        self._update_reading()
        self.transport.loseWriteConnection()
        self._set_deadline(_LINGER, self.abort)

    def _drop_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()
        if self._dialling is not None:
            self._dialling.cancel()

    def _set_deadline(self, seconds: float, callback: Callable[[], object]) -> None:
        self._cancel_deadline()
        self._deadline = self.factory.deadlines.after(seconds, callback)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # Tunnels.

    def _dial(self, route: Dial) -> None:
        dialling = self._dialling = route.endpoint.connect(factory_of(TunnelProtocol))  # type: ignore[assignment]
        timeout = self.factory.settings.connect_timeout
        late = ProxyError(Kind.CONNECTION_TIMEOUT, f"no connection within {timeout:g} seconds")
        self._set_deadline(timeout, lambda: self._dial_failed(Failure(late)))
        dialling.addCallbacks(self._dialled, self._dial_failed)

    def _dialled(self, protocol: TunnelProtocol) -> None:
        self._dialling = None
        self._cancel_deadline()
        self.transport.write(response_head(200, b"Connection established", [(b"X-Request-Id", self.request_id)]))
        self._become_tunnel(protocol.transport, protocol.join, b"")

    def _dial_failed(self, failure: Failure) -> None:
        dialling, self._dialling = self._dialling, None
        if dialling is None:
            return  # Cancelled: by the deadline, which has answered, or with the client's connection.
        self._cancel_deadline()
        dialling.addErrback(lambda _: None)
        dialling.cancel()
        self.send_problem(as_proxy_error(failure), True)

    def upgraded(self, response: Response, connection: UpstreamConnection, rest: bytes) -> None:
        """The next hop has switched protocols."""
        self._exchange = None
        kept = [header for header in response.headers if header[0].lower() != b"x-request-id"]
        self.transport.write(response_head(101, response.reason, kept))
        self._become_tunnel(connection.transport, connection.join, rest)

    def _become_tunnel(self, upstream: StreamTransport, join: Callable[[Side], None], rest: bytes) -> None:
        self._state = _State.TUNNEL
        self._update_reading()
        settings = self.factory.settings
        self._tunnel = Tunnel(
            self.transport, upstream, self.factory.deadlines, settings.idle_timeout, on_end=lambda _: None
        )
        self._side = self._tunnel.downstream
        if rest:
            self._tunnel.upstream.received(rest)
        join(self._tunnel.upstream)
        early = self._reader.take_rest()
        if early:
            self._side.received(early)
        if self._read_ended:
            self._side.ended()


def _new_request_id() -> bytes:
    return os.urandom(8).hex().encode("ascii")
