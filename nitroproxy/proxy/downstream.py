"""A client's connection: reads its requests one at a time and has their responses written in order.

States of a connection: between requests (`HEAD`), the request's body moves (`BODY`), all of it has arrived and the
response moves (`RESPONDING`), no longer HTTP (`TUNNEL`), or closing without loss of what was sent (`LINGER`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Request
from nitroproxy.proxy.backpressure import Backpressure, Throttle
from nitroproxy.proxy.closing import Closing
from nitroproxy.proxy.deadlines import Alarm
from nitroproxy.proxy.dispatch import dispatch
from nitroproxy.proxy.head_timeout import HeadTimeout
from nitroproxy.proxy.interfaces import ClientExchange, Listener
from nitroproxy.proxy.opening import ClientReader
from nitroproxy.proxy.pinned import PinnedConnections
from nitroproxy.proxy.record import End, Record
from nitroproxy.proxy.response import ResponseWriter
from nitroproxy.proxy.trace import new_request_id, request_id_of, traceparent_of
from nitroproxy.proxy.transport import StreamTransport
from nitroproxy.proxy.tunnel import Side, Tunnel
from nitroproxy.sockets.hangup import SocketTable, has_hung_up, probe
from nitroproxy.sockets.options import set_tcp_options


class _State(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    RESPONDING = enum.auto()
    TUNNEL = enum.auto()
    LINGER = enum.auto()


@implementer(IHalfCloseableProtocol)
class Downstream(Protocol):
    """One client's connection: a `Client`, and to its listener an `AcceptedConnection`.

    :ivar record: of the request at hand.
    """

    transport: StreamTransport  # type: ignore[assignment]  # Twisted types it as the least it can be
    response: ResponseWriter
    _reader: ClientReader
    record: Record | None = None
    peer: IAddress

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._settings = listener.settings
        self._state = _State.HEAD
        self.alarm = Alarm(listener.deadlines)
        self._head = HeadTimeout(self.alarm, self._close, self._head_is_late)
        self._exchange: ClientExchange | None = None
        self._side: Side | None = None
        self._tunnel: Tunnel | None = None
        self._read_ended = False
        self._reading = True
        self._advancing = False
        self.pace = Backpressure(self._advance, listener.deadlines.seconds)
        self.throttle = Throttle(self._update_reading, listener.deadlines.seconds)
        self.pinned = PinnedConnections()

    def connectionMade(self) -> None:
        self.transport.bufferSize = self._settings.buffer_bytes // 2
        self.peer = self.transport.getPeer()
        set_tcp_options(self.transport)
        self._reader, self.response = self._listener.opening(self.transport, self._settings.limits, self._listener.hop)
        self._ending = Closing(self.transport, self.alarm, self.abort)
        self.transport.registerProducer(self.pace, True)
        if (refusal := self._listener.admit(self)) is not None:
            self._refuse_head(ProxyError(refusal, "no more connections are accepted at present"))
            return
        self._await_head()
        try:
            self._advance()
        except Exception:
            self.abort()  # The reactor ends a connection for what reading raises, and not for what this does.
            raise

    def dataReceived(self, data: bytes) -> None:
        if self._state is not _State.LINGER:
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
            self._client_gone()
            self._close()  # Not an abort: the answer to the request before may still be on its way.
        elif has_hung_up(self.transport):
            self.abort()
        else:
            probe(self.transport)  # It waits for its response, or it has closed and looks as if it did.

    def look_for_hangup(self, sockets: SocketTable) -> None:
        """See `AcceptedConnection`."""
        if self._tunnel is not None:
            self._tunnel.look_for_hangup(sockets)
        elif self._exchange is None or (self._reading and not self._read_ended):
            return
        elif has_hung_up(self.transport) or (self._read_ended and sockets.has_closed(self.transport)):
            self.abort()

    def writeConnectionLost(self) -> None:
        """Our own half-close has been carried out."""
        self._ending.response_left()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.alarm.end()
        if self._side is not None:
            self._side.lost(reason)
        self._client_gone()
        self.pinned.end()
        self._listener.lost(self)

    def turn_away(self) -> None:
        """See `AcceptedConnection`. What has come unread would reset a connection that is closed: then it lingers."""
        error = ProxyError(Kind.CONNECTION_LIMIT_REACHED, "no more connections are accepted at present")
        self.response.close_after = True
        self._refuse_head(error, not self._head.begun)

    def drain(self) -> None:
        """See `AcceptedConnection`."""
        self.response.close_after = True
        if self._state is _State.HEAD and not self._head.begun:
            self._close()
        elif self._tunnel is not None:
            self._tunnel.drain()

    def abort(self) -> None:
        """End the connection at once, visibly."""
        if self._tunnel is not None:
            self._tunnel.abort()
        else:
            self.transport.abortConnection()

    @property
    def in_use(self) -> bool:
        """See `AcceptedConnection`."""
        if self._tunnel is not None:
            return not self._tunnel.in_reserve
        return self._state is not _State.HEAD or self._head.begun

    def cut_off(self, error: ProxyError) -> None:
        """End the connection at once, visibly; what is under way on it has failed with *error*."""
        if self.record is not None:
            self.record.failed(error, self._listener.hop)
            if self._tunnel is None:
                self._drop_exchange()
                self._end_record()
        self.abort()

    def end_refused_tunnel(self) -> bool:
        """End the tunnel if this is one and the router now in force refuses it; whether it did."""
        if self._tunnel is None or self.record is None:
            return False
        try:
            self.check_tunnel(self._tunnel.upstream.transport.getPeer())
        except ProxyError as error:
            self.cut_off(error)
            return True
        return False

    # Reading requests.

    def _await_head(self) -> None:
        self._state = _State.HEAD
        self._head.begin(self._settings.idle_timeout)

    def _head_is_late(self) -> None:
        late = f"no complete request head within {self._settings.header_timeout:g} seconds"
        self._refuse_head(ProxyError(Kind.REQUEST_TIMEOUT, late))

    def _advance(self) -> None:
        """Read as far as the state allows. Not re-entered: an exchange that ends in here is noticed by the loop."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._step():
                pass
        except ProxyError as error:
            if self._state is _State.HEAD:
                self._refuse_head(error)
            else:
                self._drop_exchange()
                self.fail(error, False)
        finally:
            self._advancing = False
        self._update_reading()

    def _step(self) -> bool:
        if self._state is _State.HEAD:
            if self.pace.full:
                return False  # No more answers for a client that does not read those it has.
            if self._settings is not self._listener.settings and not self._head.begun:
                # They have been replaced: a head that has not begun is read under the new ones.
                self._settings = settings = self._listener.settings
                self._reader.limit(settings.limits)
                self.transport.bufferSize = settings.buffer_bytes // 2
            if (request := self._reader.read_head()) is not None:
                self._begin(request)
            elif self._reader.buffered:
                self._head.arriving(self._settings.header_timeout)
            return request is not None
        if self._state is _State.BODY:
            exchange = self._exchange
            if exchange is None or not exchange.wants_body:
                return False
            if data := self._reader.read_body():
                assert self.record is not None
                self.record.received += len(data)
                exchange.request_data(data)
            if self._reader.complete and self._state is _State.BODY:
                self._state = _State.RESPONDING
                exchange.request_end()
                return True
        return False

    def _refuse_head(self, error: ProxyError, request_complete: bool = False) -> None:
        """What came is no request that can be served: answer, and read no more of it. The reserve need not answer."""
        self._listener.head_complete(self)
        self._begin_record(None, new_request_id())
        self.send_problem(error, request_complete)

    def _begin(self, request: Request) -> None:
        self._head.over()
        self._listener.head_complete(self)
        self._state = _State.BODY if request.content_length else _State.RESPONDING
        record = self._begin_record(request, request_id_of(request))
        self.response.rewrite_location = self._settings.rewrite_location and request.target.startswith(b"/")
        record.traceparent = traceparent_of(request, make=self._settings.make_traceparent)
        try:
            self._exchange = dispatch(self, request, record, self._settings, self._listener)
        except ProxyError as error:
            # What follows a CONNECT was meant for the tunnel: it must not be read as a request.
            self.send_problem(error, not request.content_length and request.method != b"CONNECT")
        else:
            self._exchange.start()

    def _begin_record(self, request: Request | None, request_id: bytes) -> Record:
        method = self._reader.label or (request.method if request is not None else b"")
        record = self.record = Record(self._listener.deadlines.seconds(), request_id, method)
        record.peer = self.peer
        self.response.for_request(request, request_id)
        self._listener.observer.began(record)
        return record

    def take_body(self) -> None:
        """The exchange can take the request's body now."""
        self._advance()

    def _update_reading(self) -> None:
        """Read while a body has somewhere to go, and while a head may come."""
        if self._state is _State.BODY:
            wanted = self._exchange is not None and self._exchange.wants_body and not self.throttle.full
        elif self._state is _State.RESPONDING:
            wanted = not self._reader.buffered
        else:
            wanted = self._state is not _State.HEAD or not self.pace.full
        if wanted != self._reading and not self._read_ended:
            self._reading = wanted
            (self.transport.resumeProducing if wanted else self.transport.pauseProducing)()

    # The response, as the exchange has it.

    def answering(self, status: int) -> None:
        """The response's head is about to be written."""
        assert self.record is not None
        self.record.status = status
        self.record.answered = self._listener.deadlines.seconds()
        if self._listener.draining or self._listener.is_reserved(self):
            self.response.close_after = True

    def send_body(self, data: bytes) -> None:
        """A piece of the response's body, not empty."""
        assert self.record is not None
        self.record.sent += len(data)
        self.response.body(data)

    def exchange_done(self, request_complete: bool) -> None:
        """The whole response has been handed over."""
        self._exchange = None
        self.response.end()
        self._response_done(request_complete)

    def fail(self, error: ProxyError, request_complete: bool) -> None:
        """The exchange has failed: answer so, or if a response has begun break it off (never complete it)."""
        if not self.response.begun:
            self.send_problem(error, request_complete)
            return
        self._exchange = None
        if self.record is not None:
            self.record.failed(error, self._listener.hop)
            self._end_record()
        self._begin_to_end().break_off()

    def send_problem(self, error: ProxyError, request_complete: bool) -> None:
        """Answer with the failure instead of a response."""
        self._exchange = None
        assert self.record is not None
        self.record.failed(error, self._listener.hop)
        self.answering(error.kind.status)
        self.response.problem(error, request_complete)
        self._response_done(request_complete)

    def _response_done(self, request_complete: bool) -> None:
        self.throttle.release()
        self._end_record()
        if self.response.silent:
            self.abort()
        elif not request_complete:
            self._begin_to_end().linger(self._settings.idle_timeout)
        elif self.response.close_after or (self._read_ended and not self._reader.buffered):
            self._close()
        else:
            self._reader.next_message()
            self._await_head()
            self._advance()  # A pipelined request may be here already.

    def _end_record(self) -> None:
        record, self.record = self.record, None
        if record is not None:
            self._listener.observer.ended(record, self._listener.deadlines.seconds())

    # Closing the connection.

    def _close(self) -> None:
        self._begin_to_end().close(self._settings.idle_timeout)

    def _begin_to_end(self) -> Closing:
        self._head.over()
        self._state = _State.LINGER
        self._update_reading()
        return self._ending

    def _client_gone(self) -> None:
        self._drop_exchange()
        if self.record is not None and self._tunnel is None:
            self.record.client_gone = True
            self._end_record()

    def _drop_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()

    # Tunnels.

    def check_tunnel(self, address: IAddress) -> None:
        """See `Client`."""
        assert self.record is not None
        self._listener.router.check_tunnel(self.record, address)

    def become_tunnel(self, upstream: StreamTransport, join: Callable[[Side], None], rest: bytes) -> None:
        """See `Client`."""
        self._exchange = None
        self._state = _State.TUNNEL
        self._update_reading()
        self.transport.unregisterProducer()
        assert self.record is not None
        self.transport.bufferSize = upstream.bufferSize = self._settings.buffer_bytes
        times = self._settings.tunnel_times(self.record.host, self.record.port)
        self._tunnel = Tunnel(self.transport, upstream, self._listener.deadlines, times, self._tunnel_ended)
        if self._listener.draining:
            self._tunnel.drain()
        self._side = self._tunnel.downstream
        self.dataReceived = self._side.received  # type: ignore[method-assign]
        self.record.sides = self._tunnel.downstream, self._tunnel.upstream
        self._listener.observer.switched(self.record)
        if rest:
            self._tunnel.upstream.received(rest)
        join(self._tunnel.upstream)
        if early := self._reader.take_rest():
            self._side.received(early)
        if self._read_ended:
            self._side.ended()

    def _tunnel_ended(self, end: End) -> None:
        if self.record is not None:
            self.record.end = end
            self.record.received, self.record.sent = self.record.moved
            self._end_record()
