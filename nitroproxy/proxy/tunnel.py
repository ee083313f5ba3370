"""Two connections joined: bytes go both ways until both have ended (RFC 9110 section 9.3.6).

A half-close is passed on as a half-close, an abort as an abort (where the transport has one: on vsock and UNIX sockets
the other end sees a close). Backpressure is the transports' own: each is the
other's producer. Nothing here looks at the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.proxy.deadlines import Deadline, Deadlines
from nitroproxy.proxy.transport import StreamTransport

#: Seconds that the second connection may take to send what it holds once the first has gone.
_LAST_WORDS: Final = 10.0
#: Seconds in which what has arrived from a connection that was then reset may leave on the other.
_LAST_BYTES: Final = 0.05


class Side:
    """One end of a tunnel. The protocol that owns the connection passes its events to it."""

    __slots__ = ("bytes", "gone", "other", "read_ended", "transport", "tunnel")

    other: Side

    def __init__(self, transport: StreamTransport, tunnel: Tunnel) -> None:
        self.transport = transport
        self.tunnel = tunnel
        self.bytes = 0
        self.read_ended = False
        self.gone = False

    def received(self, data: bytes) -> None:
        """The connection has delivered *data*."""
        self.bytes += len(data)
        self.tunnel.moved()
        if not self.other.gone:
            self.other.transport.write(data)

    def ended(self) -> None:
        """The peer will send no more, but still reads."""
        if self.read_ended:
            return
        self.read_ended = True
        self.tunnel.moved()
        if self.other.gone:
            return
        self.other.transport.unregisterProducer()
        if self.other.read_ended:
            self.tunnel.finish()
        elif not ISSLTransport.providedBy(self.other.transport):
            # TLS as Twisted has it cannot end one direction alone; there the other end is not told.
            self.other.transport.loseWriteConnection()

    def lost(self, reason: Failure) -> None:
        """The connection is gone, both ways."""
        self.gone = True
        self.tunnel.side_lost(self, clean=reason.check(ConnectionDone) is not None)


class Tunnel:
    """A joined pair of connections.

    :param downstream: the client's transport.
    :param upstream: the other transport.
    :param idle_timeout: seconds without a byte either way after which both are aborted.
    :param on_end: called once, when both connections are gone.
    """

    def __init__(
        self,
        downstream: StreamTransport,
        upstream: StreamTransport,
        deadlines: Deadlines,
        idle_timeout: float,
        on_end: Callable[[], object],
    ) -> None:
        self.downstream = Side(downstream, self)
        self.upstream = Side(upstream, self)
        self.downstream.other = self.upstream
        self.upstream.other = self.downstream
        self._deadlines = deadlines
        self._idle_timeout = idle_timeout
        self._on_end = on_end
        self._last_moved = deadlines.seconds()
        self._idle: Deadline | None = deadlines.after(idle_timeout, self._check_idle)
        downstream.registerProducer(upstream, True)
        upstream.registerProducer(downstream, True)

    def moved(self) -> None:
        """Note that the tunnel is in use."""
        self._last_moved = self._deadlines.seconds()

    def abort(self) -> None:
        """End both connections at once."""
        for side in (self.downstream, self.upstream):
            if not side.gone:
                side.transport.unregisterProducer()
                side.transport.abortConnection()

    def end_when_quiet(self, seconds: float) -> None:
        """From now on end after *seconds* without a byte: what is quiet so long is taken for a connection kept in
        reserve."""
        if self._idle is not None and seconds < self._idle_timeout:
            self._idle_timeout = seconds
            self._idle.cancel()
            self._check_idle()

    def finish(self) -> None:
        """End both connections once each has sent what it holds."""
        for side in (self.downstream, self.upstream):
            if not side.gone:
                side.transport.unregisterProducer()
                side.transport.loseConnection()
        self._bound_last_words(_LAST_WORDS)

    def side_lost(self, side: Side, *, clean: bool) -> None:
        """One connection has gone: the other follows, after its last bytes when the first ended cleanly."""
        other = side.other
        if other.gone:
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None
            self._on_end()
            return
        other.transport.unregisterProducer()
        if clean:
            other.transport.loseConnection()
            self._bound_last_words(_LAST_WORDS)
        else:
            # An abort, but not of what had arrived before it.
            self._bound_last_words(_LAST_BYTES)

    def _bound_last_words(self, seconds: float) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = self._deadlines.after(seconds, self.abort)

    def _check_idle(self) -> None:
        left = self._last_moved + self._idle_timeout - self._deadlines.seconds()
        if left <= 0:
            self.abort()
        else:
            self._idle = self._deadlines.after(left, self._check_idle)


@implementer(IHalfCloseableProtocol)
class TunnelProtocol(Protocol):
    """The protocol of a connection dialled only to become a tunnel's upstream `Side`."""

    transport: StreamTransport  # type: ignore[assignment]  # Twisted types it as the least it can be

    def __init__(self) -> None:
        self._side: Side | None = None
        self._early: list[bytes] = []
        self._ended = False
        self._lost: Failure | None = None

    def join(self, side: Side) -> None:
        """From now on the connection's events are *side*'s, those that came earlier too."""
        self._side = side
        for data in self._early:
            side.received(data)
        self._early = []
        if self._lost is not None:
            side.lost(self._lost)
        elif self._ended:
            side.ended()

    def dataReceived(self, data: bytes) -> None:
        if self._side is not None:
            self._side.received(data)
        else:
            self._early.append(data)

    def readConnectionLost(self) -> None:
        if self._side is not None:
            self._side.ended()
        else:
            self._ended = True

    def writeConnectionLost(self) -> None:
        """Our own half-close has been carried out: nothing to do."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._side is not None:
            self._side.lost(reason)
        else:
            self._lost = reason
