"""Connections to the next hop: one of them (`UpstreamConnection`) and the pool of those kept alive (`Pool`).

A connection carries one exchange at a time. What it reads goes to the `ResponseReceiver` of that exchange, which does
the writing itself. It knows nothing of the client.

The rule for idle connections: one is kept no longer than `PoolSettings.idle_timeout`, and if the next hop's last
response said ``Keep-Alive: timeout=N``, no longer than that less a margin, so that no request meets its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Final
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.framing import keep_alive_seconds
from nitroproxy.http1.messages import UNTIL_CLOSE, Headers, Response
from nitroproxy.http1.reader import ResponseReader
from nitroproxy.proxy.deadlines import Deadline, Deadlines
from nitroproxy.proxy.settings import PoolSettings
from nitroproxy.proxy.transport import StreamTransport, factory_of
from nitroproxy.proxy.tunnel import Side

#: Interim responses taken before one request's final response.
_MOST_INTERIM: Final = 8
#: Seconds before the next hop ends an idle connection in which it is not used: for a request that is on its way then.
_KEEP_ALIVE_MARGIN: Final = 1.0
#: Seconds that a connection without an exchange may take to end in order.
_FAREWELL: Final = 1.0


class ResponseReceiver(Interface):
    """Takes a response: interim heads, the head and what came with it, data; then its end, switch or failure."""

    def response_interim(self, response: Response) -> None: ...
    def response_head(self, response: Response, data: bytes, last: bool) -> None: ...
    def response_data(self, data: bytes, last: bool) -> None: ...
    def response_end(self, reusable: bool) -> None: ...
    def response_upgrade(self, response: Response, rest: bytes) -> None: ...
    def response_failed(self, error: ProxyError) -> None: ...


@implementer(IHalfCloseableProtocol, IPushProducer)
class UpstreamConnection(Protocol):
    """One connection to the next hop.

    :ivar key: the next hop, as the pool knows it.
    :ivar pool: the pool that made it.
    :ivar usable: it can carry another exchange once the present one is over.
    :ivar opened_by: the id of the request for which it was made.
    :ivar keep_for: seconds that the next hop keeps it when it is idle, as far as it has said so.
    :ivar idle_until: when the pool ends it, unless it is used before; only in the pool.
    """

    transport: StreamTransport  # type: ignore[assignment]  # Twisted types it as the least it can be

    def __init__(self, pool: Pool, key: Hashable, opened_by: bytes) -> None:
        self.key = key
        self.opened_by = opened_by
        self.keep_for, self.idle_until = math.inf, 0.0
        self.pool = pool
        self.usable, self.gone = True, False
        self._reader = ResponseReader(pool.limits)
        self._receiver: ResponseReceiver | None = None
        self._response: Response | None = None
        self._method = b""
        self._interim = self._interim_bytes = 0
        self._side: Side | None = None
        self._paused = False
        self._farewell: Deadline | None = None

    def begin(self, receiver: ResponseReceiver, method: bytes) -> None:
        """Give the response to come, to a request with *method*, to *receiver*."""
        self._receiver = receiver
        self._method = method
        self._interim = self._interim_bytes = 0

    def forget(self) -> None:
        """End the connection at once; its receiver hears nothing more."""
        self._receiver = None
        self.usable = False
        self.pool.withdraw(self)
        if not self.gone:
            self.transport.abortConnection()

    def close(self) -> None:
        """End the connection, which carries no exchange, in order: TLS sends close_notify (RFC 8446 section 6.1), and
        the next hop has a second to answer that."""
        self.usable = False
        self.pool.withdraw(self)
        if not self.gone and self._farewell is None:
            self.transport.loseConnection()
            self._farewell = self.pool.forget_soon(self)

    def join(self, side: Side) -> None:
        """Become *side* of a tunnel, after a 101."""
        self._side = side

    def dataReceived(self, data: bytes) -> None:
        if self._side is not None:
            self._side.received(data)
        elif self._receiver is None:
            self.forget()  # Bytes that answer no request: the connection is out of step (RFC 9112 section 9.3).
        else:
            self._reader.feed(data)
            try:
                self._advance()
            except ProxyError as error:
                self._fail(error)

    def _advance(self) -> None:
        while self._receiver is not None:
            if self._response is None:
                response = self._reader.read_head(self._method)
                if response is None:
                    return
                self._head_read(response)
                continue
            data = self._reader.read_body()
            complete = self._reader.complete
            if data:
                self._receiver.response_data(data, complete)
            if not complete:
                return
            self._complete()

    def _head_read(self, response: Response) -> None:
        receiver = self._receiver
        assert receiver is not None
        if response.status == 101:
            self._receiver = None
            receiver.response_upgrade(response, self._reader.take_rest())
        elif response.status < 200:
            self._interim += 1  # They go to a client that may not read: together they are bounded as one head is.
            self._interim_bytes += sum(len(name) + len(value) for name, value in response.fields.in_order)
            if self._interim > _MOST_INTERIM or self._interim_bytes > self.pool.limits.header_bytes:
                raise ProxyError(Kind.HTTP_PROTOCOL_ERROR, "too many, or too large, interim responses")
            self._reader.next_message()
            receiver.response_interim(response)
        elif response.content_length == UNTIL_CLOSE and not self.pool.end_is_proof(self.key):
            raise ProxyError(
                Kind.HTTP_PROTOCOL_ERROR, "the response has neither a Content-Length nor a Transfer-Encoding field"
            )
        else:
            self._response = response
            data = b""
            with suppress(ProxyError):  # The head goes on all the same; the next read fails again.
                data = self._reader.read_body()
            receiver.response_head(response, data, self._reader.complete)

    def _complete(self) -> None:
        if self._receiver is None or self._response is None:
            return
        receiver, self._receiver = self._receiver, None
        reusable = self._response.keep_alive and not self._reader.buffered and not self.gone
        if b"keep-alive" in self._response.fields.values:
            self.keep_for = keep_alive_seconds(self._response.fields)
        self._response = None  # An idle connection keeps nothing of what it has carried.
        self._reader.next_message()
        receiver.response_end(reusable)

    def _fail(self, error: ProxyError) -> None:
        receiver, self._receiver = self._receiver, None
        self.forget()
        if receiver is not None:
            receiver.response_failed(error)

    def readConnectionLost(self) -> None:
        """The next hop has ended its direction: no response can follow the one under way."""
        if self._side is not None:
            self._side.ended()
        else:
            self.usable = False
            self.pool.withdraw(self)
            self._input_ended(clean=True)
            if not self.gone:
                self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our own half-close has been carried out: nothing to do."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        self.usable = False
        self.pool.lost(self)
        if self._farewell is not None:
            self._farewell.cancel()
        if self._side is not None:
            self._side.lost(reason)
        else:
            self._input_ended(clean=reason.check(ConnectionDone) is not None, why=reason.value)

    def _input_ended(self, *, clean: bool, why: object = None) -> None:
        if self._receiver is None:
            return
        try:
            if self._response is None:
                lost = ProxyError(Kind.CONNECTION_TERMINATED, "the connection ended before a response")
                raise why if isinstance(why, ProxyError) else lost  # The transport knows of a TLS alert.
            self._reader.end_of_input(clean)
        except ProxyError as error:
            receiver, self._receiver = self._receiver, None
            receiver.response_failed(error)
        else:
            self._receiver.response_data(b"", True)
            self._complete()

    def pauseProducing(self) -> None:
        """The client reads too slowly."""
        self._paused = True
        if not self.gone:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The client has caught up."""
        self._paused = False
        if not self.gone:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The client has gone: its connection's end reaches the exchange by itself."""

    def rest(self) -> None:
        """Be ready for another exchange."""
        if self._paused:
            self.resumeProducing()


class Pool:
    """Connections to next hops, kept alive between exchanges.

    :param endpoint_for: makes the endpoint of a key, given also the fields that identify the request.
    :param end_is_proof: whether the end of a connection to a key may be taken for the end of a body without a length.
        It may not where a reset reads as an end: on vsock and UNIX sockets without TLS.
    """

    def __init__(
        self,
        endpoint_for: Callable[[Hashable, Headers], IStreamClientEndpoint],
        deadlines: Deadlines,
        settings: PoolSettings,
        *,
        end_is_proof: Callable[[Hashable], bool],
    ) -> None:
        self.limits = settings.limits
        self.end_is_proof = end_is_proof
        self._endpoint_for = endpoint_for
        self._deadlines, self._settings = deadlines, settings
        self._retired = False
        self._sweep: Deadline | None = None
        self._sweep_at = 0.0
        self._idle: dict[Hashable, list[UpstreamConnection]] = {}
        self._pinned: dict[UpstreamConnection, None] = {}  # Those that are idle, in order of age.
        self._open = 0

    @property
    def open(self) -> int:
        """Connections that are up or being made."""
        return self._open

    @property
    def idle(self) -> int:
        """Connections without an exchange."""
        return sum(map(len, self._idle.values()))

    def take_idle(self, key: Hashable) -> UpstreamConnection | None:
        """The connection to *key* that was used last and is still worth using, or None."""
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            if not idle:
                del self._idle[key]
            if connection.idle_until > self._deadlines.seconds():
                return connection
            connection.close()
        return None

    def connect(self, key: Hashable, identity: Headers) -> Deferred[UpstreamConnection]:
        """A new connection to *key*.

        :param identity: the fields that identify the request for which it is made, its id first.
        The Deferred fails with `ProxyError` (the cap, the deadline) or as the endpoint fails.
        """
        connecting: Deferred[UpstreamConnection] = Deferred()
        most = self._settings.most
        if self._open >= most and not self._drop_one_idle(at_once=True):
            connecting.errback(ProxyError(Kind.CONNECTION_LIMIT_REACHED, f"all {most} upstream connections are in use"))
            return connecting
        self._open += 1
        opened_by = identity[0][1] if identity else b""
        endpoint = self._endpoint_for(key, identity)
        attempt: Any = endpoint.connect(factory_of(lambda: UpstreamConnection(self, key, opened_by)))
        return self._bounded(attempt)

    def _bounded(self, connecting: Deferred[UpstreamConnection]) -> Deferred[UpstreamConnection]:
        timed_out = False

        def time_out() -> None:
            nonlocal timed_out
            timed_out = True
            connecting.cancel()

        timeout = self._settings.connect_timeout
        deadline = self._deadlines.after(timeout, time_out)

        def settled(result: UpstreamConnection | Failure) -> UpstreamConnection | Failure:
            deadline.cancel()
            if not isinstance(result, Failure):
                return result
            self._open -= 1
            late = ProxyError(Kind.CONNECTION_TIMEOUT, f"no connection within {timeout:g} seconds")
            return Failure(late) if timed_out else result

        return connecting.addBoth(settled)

    def release(self, connection: UpstreamConnection) -> None:
        """Keep *connection* for another exchange, or end it when it is not worth keeping."""
        keep_for = min(self._settings.idle_timeout, connection.keep_for - _KEEP_ALIVE_MARGIN)
        if self._retired or keep_for <= 0:
            connection.close()
            return
        idle = self._idle.setdefault(connection.key, [])
        if len(idle) >= self._settings.most_idle:
            idle.pop(0).close()
        connection.rest()
        connection.idle_until = self._deadlines.seconds() + keep_for
        idle.append(connection)
        if self._sweep is None or connection.idle_until < self._sweep_at:
            self._sweep_at_latest(connection.idle_until)

    def _sweep_at_latest(self, when: float) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep_at = when
        self._sweep = self._deadlines.after(when - self._deadlines.seconds(), self._end_idle)

    def _end_idle(self) -> None:
        """End the connections that have been idle too long; look again when the next one will have been."""
        self._sweep = None
        now = self._deadlines.seconds()
        for idle in list(self._idle.values()):
            for connection in [one for one in idle if one.idle_until <= now]:
                connection.close()  # It leaves the pool by itself.
        if self._idle:
            self._sweep_at_latest(min(one.idle_until for idle in self._idle.values() for one in idle))

    def forget_soon(self, connection: UpstreamConnection) -> Deadline:
        """Bound the time in which *connection* may end in order."""
        return self._deadlines.after(_FAREWELL, connection.forget)

    def lost(self, connection: UpstreamConnection) -> None:
        """*connection* has ended."""
        self._open -= 1
        self.withdraw(connection)

    def pinned(self, connection: UpstreamConnection) -> None:
        """*connection* is idle, and its client's alone. It ends when there is no other room for a new one."""
        self._pinned[connection] = None

    def withdraw(self, connection: UpstreamConnection) -> None:
        """Do not hand *connection* out any more, nor take it for idle."""
        self._pinned.pop(connection, None)
        idle = self._idle.get(connection.key)
        if idle is not None and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle[connection.key]

    def retire(self) -> None:
        """End the connections that no exchange uses, and from now on each one when its exchange is over."""
        self._retired = True
        self.close_idle()

    def close_idle(self) -> None:
        """End the connections that no exchange uses; not the pinned ones, which their clients count on."""
        while self._drop_one_idle(at_once=False):
            pass

    def _drop_one_idle(self, *, at_once: bool) -> bool:
        """End the oldest idle connection of the first key, or if need be a pinned one; False when there is none."""
        for key in self._idle:
            connection = self._idle[key].pop(0)
            if not self._idle[key]:
                del self._idle[key]
            connection.forget() if at_once else connection.close()
            return True
        if at_once and self._pinned:
            next(iter(self._pinned)).forget()
            return True
        return False
