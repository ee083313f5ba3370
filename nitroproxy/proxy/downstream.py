"""A client's connection: reads its requests one at a time and has their responses written in order.

States of a connection: between requests (`HEAD`), the request's body moves (`BODY`), all of it has arrived and the
response moves (`RESPONDING`), no longer HTTP (`TUNNEL`), or being closed so that the last response is not lost
(`LINGER`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Request, Response
from nitroproxy.http1.reader import RequestReader
from nitroproxy.proxy.carrier import carrier
from nitroproxy.proxy.deadlines import Deadline
from nitroproxy.proxy.ending import Ending
from nitroproxy.proxy.pace import Pace
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.response import ResponseWriter
from nitroproxy.proxy.route import ClientExchange
from nitroproxy.proxy.trace import new_request_id, request_id_of, traceparent_of
from nitroproxy.proxy.transport import StreamTransport
from nitroproxy.proxy.tunnel import Side, Tunnel, TunnelProtocol
from nitroproxy.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    from nitroproxy.proxy.listener import DownstreamFactory

#: Seconds of silence after which a drain takes a tunnel for one that nobody waits for.
_QUIET: Final = 5.0


class _State(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    RESPONDING = enum.auto()
    TUNNEL = enum.auto()
    LINGER = enum.auto()


@implementer(IHalfCloseableProtocol, IPushProducer)
class Downstream(Protocol):
    """One client's connection.

    :ivar response: writes what this client is answered.
    :ivar record: of the request at hand.
    :ivar peer: who is at the other end.
    :ivar upstream_full: the upstream connection has enough to send of this client's body.
    """

    factory: DownstreamFactory
    transport: StreamTransport  # type: ignore[assignment]  # Twisted types it as the least it can be
    response: ResponseWriter
    record: Record | None = None
    peer: IAddress

    def __init__(self, factory: DownstreamFactory) -> None:
        self.factory = factory
        self._settings = factory.settings
        self._reader = RequestReader(factory.settings.limits)
        self._state = _State.HEAD
        self._deadline: Deadline | None = None
        self._head_begun = False
        self._idle_since = 0.0
        self._exchange: ClientExchange | None = None
        self._side: Side | None = None
        self._tunnel: Tunnel | None = None
        self._read_ended = False
        self._reading = True
        self._pace = Pace(self._advance)
        self.upstream_full = False
        self._advancing = False
        #: The upstream connection had enough at some time since this was last set to False.
        self.was_held_back = False

    # The connection's own events.

    def connectionMade(self) -> None:
        self.transport.bufferSize = self._settings.buffer_bytes // 2
        self.peer = self.transport.getPeer()
        self.response = ResponseWriter(self.transport, self.factory.hop, self.factory.pseudonym)
        self._ending = Ending(self.transport, self.factory.deadlines, self.abort)
        self.transport.registerProducer(self._pace, True)
        refusal = self.factory.admit(self)
        if refusal is not None:
            self._refuse_head(ProxyError(refusal, "no more connections are accepted at present"))
            return
        self._await_head()

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

    def writeConnectionLost(self) -> None:
        """Our own half-close has been carried out."""
        self._ending.response_left()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._cancel_deadline()
        self._ending.over()
        if self._side is not None:
            self._side.lost(reason)
        self._client_gone()
        self.factory.lost(self)

    def drain(self) -> None:
        """End the connection: now between requests, after the response under way, a tunnel when it falls silent."""
        self.response.close_after = True
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

    @property
    def in_use(self) -> bool:
        """A request comes or is under way, its response may not have left, or it is a tunnel not kept in reserve."""
        if self._tunnel is not None:
            return self._tunnel.quiet_for() < _QUIET
        return self._state is not _State.HEAD or self._head_begun

    def cut_off(self, error: ProxyError) -> None:
        """End the connection at once, visibly; what is under way on it has failed with *error*."""
        if self.record is not None:
            self.record.failed(error, self.factory.hop)
            if self._tunnel is None:
                self._drop_exchange()
                self._end_record()
        self.abort()

    def end_refused_tunnel(self) -> bool:
        """End the tunnel if this is one and the router now in force refuses it; whether it did."""
        if self._tunnel is None or self.record is None:
            return False
        try:
            self.factory.router.check_tunnel(self.record, self._tunnel.upstream.transport.getPeer())
        except ProxyError as error:
            self.cut_off(error)
            return True
        return False

    # Reading requests.

    def _await_head(self) -> None:
        self._state = _State.HEAD
        self._head_begun = False
        self._idle_since = self.factory.deadlines.seconds()
        if self._deadline is None:
            self._set_deadline(self._settings.idle_timeout, self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        """One deadline for many requests: it is not set anew with each, but looks how long none has come."""
        self._deadline = None
        if self._state is not _State.HEAD or self._head_begun:
            return  # The next wait for a head sets another.
        left = self._idle_since + self._settings.idle_timeout - self.factory.deadlines.seconds()
        if left > 0:
            self._set_deadline(left, self._look_whether_idle)
        else:
            self._close()

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
            if self._pace.full:
                return False  # No more answers for a client that does not read those it has.
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
                assert self.record is not None
                self.record.received += len(data)
                exchange.request_data(data)
            if self._reader.complete and self._state is _State.BODY:
                self._state = _State.RESPONDING
                exchange.request_end()
                return True
        return False

    def _head_is_late(self) -> None:
        if self._reader.buffered and not self._head_begun:
            self._head_begun = True
            timeout = self._settings.header_timeout
            error = ProxyError(Kind.REQUEST_TIMEOUT, f"no complete request head within {timeout:g} seconds")
            self._set_deadline(timeout, lambda: self._refuse_head(error))

    def _refuse_head(self, error: ProxyError) -> None:
        """What came is no request that can be served: answer, and read no more of it."""
        self._begin_record(None, new_request_id())
        self.send_problem(error, False)

    def _begin(self, request: Request) -> None:
        if self._head_begun:
            self._cancel_deadline()
        settings = self._settings = self.factory.settings
        self._state = _State.BODY if request.content_length else _State.RESPONDING
        record = self._begin_record(request, request_id_of(request))
        record.traceparent = traceparent_of(request, make=settings.make_traceparent)
        try:
            self._exchange = carrier(self, request, record, settings)
        except ProxyError as error:
            # What follows a CONNECT was meant for the tunnel: it must not be read as a request.
            self.send_problem(error, not request.content_length and request.method != b"CONNECT")
        else:
            self._exchange.start()

    def _begin_record(self, request: Request | None, request_id: bytes) -> Record:
        method = request.method if request is not None else b""
        record = self.record = Record(self.factory.deadlines.seconds(), request_id, method)
        record.peer = self.peer
        self.response.for_request(request, request_id)
        self.factory.observer.began(record)
        return record

    def take_body(self) -> None:
        """The exchange can take the request's body now."""
        self._advance()

    # Reading or not: while a body has somewhere to go, and while a head may come.

    def _update_reading(self) -> None:
        if self._state is _State.BODY:
            wanted = self._exchange is not None and self._exchange.wants_body and not self.upstream_full
        elif self._state is _State.RESPONDING:
            wanted = not self._reader.buffered
        else:
            wanted = self._state is not _State.HEAD or not self._pace.full
        if wanted != self._reading and not self._read_ended:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def pauseProducing(self) -> None:
        """The upstream connection has enough to send."""
        self.upstream_full = self.was_held_back = True
        self._update_reading()

    def resumeProducing(self) -> None:
        """The upstream connection has caught up."""
        self.upstream_full = False
        self._update_reading()

    def stopProducing(self) -> None:
        """The upstream connection has gone: the exchange is told by itself."""

    def read_response_from(self, source: IPushProducer | None) -> None:
        """The response's body comes from *source*, at the pace at which the client reads; None: no more of it does."""
        self._pace.follow(source)

    @property
    def client_full(self) -> bool:
        """The client has not read enough of what was written."""
        return self._pace.full

    # The response, as the exchange has it.

    def answering(self, status: int) -> None:
        """The response's head is about to be written."""
        assert self.record is not None
        self.record.status = status
        self.record.answered = self.factory.deadlines.seconds()
        if self.factory.draining:
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
            self.record.failed(error, self.factory.hop)
            self._end_record()
        self._break_off()

    def send_problem(self, error: ProxyError, request_complete: bool) -> None:
        """Answer with the failure instead of a response."""
        self._exchange = None
        assert self.record is not None
        self.record.failed(error, self.factory.hop)
        self.answering(error.kind.status)
        self.response.problem(error, request_complete)
        self._response_done(request_complete)

    def _response_done(self, request_complete: bool) -> None:
        self.upstream_full = False
        self._end_record()
        if not request_complete:
            self._linger()
        elif self.response.close_after or (self._read_ended and not self._reader.buffered):
            self._close()
        else:
            self._reader.next_message()
            self._await_head()
            self._advance()  # A pipelined request may be here already.

    def _end_record(self) -> None:
        record, self.record = self.record, None
        if record is not None:
            self.factory.observer.ended(record, self.factory.deadlines.seconds())

    # Ending the connection.

    def _close(self) -> None:
        self._begin_to_end()
        self._ending.close(self._settings.idle_timeout)

    def _linger(self) -> None:
        self._begin_to_end()
        self._ending.linger(self._settings.idle_timeout)

    def _break_off(self) -> None:
        self._begin_to_end()
        self._ending.break_off()

    def _begin_to_end(self) -> None:
        self._cancel_deadline()
        self._state = _State.LINGER
        self._update_reading()

    def _client_gone(self) -> None:
        self._drop_exchange()
        if self.record is not None and self._tunnel is None:
            self.record.client_gone = True
            self._end_record()

    def _drop_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abandon()

    def _set_deadline(self, seconds: float, callback: Callable[[], object]) -> None:
        self._cancel_deadline()
        self._deadline = self.factory.deadlines.after(seconds, callback)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # Tunnels.

    def dialled(self, protocol: TunnelProtocol) -> None:
        """The CONNECT has been carried out."""
        self.answering(200)
        self.response.connected()
        self._become_tunnel(protocol.transport, protocol.join, b"")

    def upgraded(self, response: Response, connection: UpstreamConnection, rest: bytes) -> None:
        """The next hop has switched protocols."""
        self.answering(101)
        self.response.switching(response)
        self._become_tunnel(connection.transport, connection.join, rest)

    def _become_tunnel(self, upstream: StreamTransport, join: Callable[[Side], None], rest: bytes) -> None:
        self._exchange = None
        self._state = _State.TUNNEL
        self._update_reading()
        self.transport.unregisterProducer()
        assert self.record is not None
        self.transport.bufferSize = upstream.bufferSize = self._settings.buffer_bytes
        self._tunnel = Tunnel(
            self.transport, upstream, self.factory.deadlines, self._settings.idle_timeout, on_end=self._tunnel_ended
        )
        if self.factory.draining:
            self._tunnel.end_when_quiet(_QUIET)
        self._side = self._tunnel.downstream
        self.dataReceived = self._side.received  # type: ignore[method-assign]
        self.record.sides = self._tunnel.downstream, self._tunnel.upstream
        self.factory.observer.switched(self.record)
        if rest:
            self._tunnel.upstream.received(rest)
        join(self._tunnel.upstream)
        early = self._reader.take_rest()
        if early:
            self._side.received(early)
        if self._read_ended:
            self._side.ended()

    def _tunnel_ended(self) -> None:
        if self.record is not None:
            self.record.received, self.record.sent = self.record.moved
            self._end_record()
