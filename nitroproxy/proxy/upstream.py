"""Connections to the next hop: one of them (`UpstreamConnection`) and the pool of those kept alive (`Pool`).

A connection carries one exchange at a time. What it reads goes to the `ResponseReceiver` of that exchange; what is
written to it is the exchange's business. It knows nothing of the client.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import UNTIL_CLOSE, Headers, Response
from nitroproxy.http1.reader import ResponseReader
from nitroproxy.proxy.deadlines import Deadline, Deadlines
from nitroproxy.proxy.settings import PoolSettings
from nitroproxy.proxy.transport import StreamTransport, factory_of
from nitroproxy.proxy.tunnel import Side

#: Interim responses taken before one request's final response.
_MOST_INTERIM: Final = 8


class ResponseReceiver(Interface):
    """What an exchange is told about its response, in this order: interim heads, the head, data, the end or the
    loss."""

    def response_interim(self, response: Response) -> None: ...
    def response_head(self, response: Response) -> None: ...
    def response_data(self, data: bytes, last: bool) -> None: ...
    def response_end(self, reusable: bool) -> None: ...
    def response_upgrade(self, response: Response, rest: bytes) -> None: ...
    def response_failed(self, error: ProxyError) -> None: ...


@implementer(IHalfCloseableProtocol, IPushProducer)
class UpstreamConnection(Protocol):
    """One connection to the next hop.

    :ivar key: what the pool keeps it under.
    :ivar pool: the pool that made it.
    :ivar usable: it can carry another exchange once the one at hand is over.
    :ivar opened_by: the id of the request for which it was made.
    :ivar idle_since: when its last exchange ended, in seconds.
    """

    transport: StreamTransport  # type: ignore[assignment]  # Twisted types it as the least it can be

    def __init__(self, pool: Pool, key: Hashable, opened_by: bytes) -> None:
        self.key = key
        self.opened_by = opened_by
        self.idle_since = 0.0
        self.pool = pool
        self.usable = True
        self._reader = ResponseReader(pool.limits)
        self._receiver: ResponseReceiver | None = None
        self._response: Response | None = None
        self._method = b""
        self._interim = 0
        self._side: Side | None = None
        self._paused = False
        self.gone = False

    def begin(self, receiver: ResponseReceiver, method: bytes) -> None:
        """Give the response to come, to a request with *method*, to *receiver*."""
        self._receiver = receiver
        self._method = method
        self._interim = 0

    def forget(self) -> None:
        """End the connection at once; its receiver is told nothing more."""
        self._receiver = None
        self.usable = False
        self.pool.withdraw(self)
        if not self.gone:
            self.transport.abortConnection()

    def join(self, side: Side) -> None:
        """Become *side* of a tunnel, after a 101."""
        self._side = side

    def dataReceived(self, data: bytes) -> None:
        if self._side is not None:
            self._side.received(data)
        elif self._receiver is None:
            self.forget()  # Bytes that answer nothing: whatever they are, the connection is out of step (RFC 9112 9.3).
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
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                raise ProxyError(Kind.HTTP_PROTOCOL_ERROR, f"more than {_MOST_INTERIM} interim responses")
            self._reader.next_message()
            receiver.response_interim(response)
        elif response.content_length == UNTIL_CLOSE and not self.pool.end_is_proof(self.key):
            raise ProxyError(
                Kind.HTTP_PROTOCOL_ERROR, "the response has neither a Content-Length nor a Transfer-Encoding field"
            )
        else:
            self._response = response
            receiver.response_head(response)

    def _complete(self) -> None:
        if self._receiver is None or self._response is None:
            return
        receiver, self._receiver = self._receiver, None
        reusable = self._response.keep_alive and not self._reader.buffered and not self.gone
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
        if self._side is not None:
            self._side.lost(reason)
        else:
            self._input_ended(clean=reason.check(ConnectionDone) is not None)

    def _input_ended(self, *, clean: bool) -> None:
        if self._receiver is None:
            return
        try:
            if self._response is None:
                raise ProxyError(Kind.CONNECTION_TERMINATED, "the connection ended before a response")
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
        """The client has gone: its connection's end tells the exchange."""

    def rest(self) -> None:
        """Be ready for another exchange."""
        if self._paused:
            self.resumeProducing()


class Pool:
    """Connections to next hops, kept alive between exchanges.

    :param endpoint_for: the endpoint that a key stands for, given also the fields that identify the request.
    :param end_is_proof: whether the end of a connection to a key may be taken for the end of a body without a length.
        Not so where a reset reads as an end: without TLS on vsock and UNIX sockets.
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
        self._deadlines = deadlines
        self._settings = settings
        self._retired = False
        self._sweep: Deadline | None = None
        self._idle: dict[Hashable, list[UpstreamConnection]] = {}
        self._open = 0

    @property
    def open(self) -> int:
        """Connections that are up or being made."""
        return self._open

    @property
    def idle(self) -> int:
        """Connections that wait for an exchange."""
        return sum(map(len, self._idle.values()))

    def take_idle(self, key: Hashable) -> UpstreamConnection | None:
        """The connection to *key* that was used last, or None."""
        idle = self._idle.get(key)
        if not idle:
            return None
        connection = idle.pop()
        if not idle:
            del self._idle[key]
        return connection

    def connect(self, key: Hashable, identity: Headers) -> Deferred[UpstreamConnection]:
        """A new connection to *key*.

        :param identity: the fields that identify the request for which it is made, its id first.
        The Deferred fails with `ProxyError` (the cap, the deadline) or with whatever the endpoint fails with.
        """
        connecting: Deferred[UpstreamConnection] = Deferred()
        most = self._settings.most
        if self._open >= most and not self._drop_one_idle():
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

        def failed(failure: Failure) -> Failure:
            self._open -= 1
            if timed_out:
                detail = f"no connection within {timeout:g} seconds"
                return Failure(ProxyError(Kind.CONNECTION_TIMEOUT, detail))
            return failure

        def settled(result: UpstreamConnection | Failure) -> UpstreamConnection | Failure:
            deadline.cancel()
            return result

        connecting.addBoth(settled)
        connecting.addErrback(failed)
        return connecting

    def release(self, connection: UpstreamConnection) -> None:
        """Keep *connection* for another exchange."""
        if self._retired:
            connection.forget()
            return
        idle = self._idle.setdefault(connection.key, [])
        if len(idle) >= self._settings.most_idle:
            idle.pop(0).forget()
        connection.rest()
        connection.idle_since = self._deadlines.seconds()
        idle.append(connection)
        if self._sweep is None:
            self._sweep = self._deadlines.after(self._settings.idle_timeout, self._end_idle)

    def _end_idle(self) -> None:
        """End the connections that have been idle too long; look again when the next one may be."""
        self._sweep = None
        before = self._deadlines.seconds() - self._settings.idle_timeout
        for idle in list(self._idle.values()):
            while idle and idle[0].idle_since <= before:
                idle.pop(0).forget()
        self._idle = {key: idle for key, idle in self._idle.items() if idle}
        if self._idle:
            oldest = min(idle[0].idle_since for idle in self._idle.values())
            self._sweep = self._deadlines.after(oldest - before, self._end_idle)

    def lost(self, connection: UpstreamConnection) -> None:
        """*connection* has ended."""
        self._open -= 1
        self.withdraw(connection)

    def withdraw(self, connection: UpstreamConnection) -> None:
        """Do not hand *connection* out any more."""
        idle = self._idle.get(connection.key)
        if idle is not None and connection in idle:
            idle.remove(connection)
            if not idle:
                del self._idle[connection.key]

    def retire(self) -> None:
        """End the connections that no exchange uses, now and from now on: those in use when theirs is over."""
        self._retired = True
        while self._drop_one_idle():
            pass

    def _drop_one_idle(self) -> bool:
        """End the idle connection of the key that has been waiting longest; False when there is none."""
        for key in self._idle:
            connection = self._idle[key].pop(0)
            if not self._idle[key]:
                del self._idle[key]
            connection.forget()
            return True
        return False
