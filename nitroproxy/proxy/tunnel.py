"""Two connections joined: bytes go both ways until both have ended (RFC 9110 section 9.3.6).

A half-close is passed on as a half-close, an abort as an abort (where the transport has one: on vsock and UNIX sockets
the other end sees a close). A peer that has closed both directions ends the tunnel.

How long it may be silent, and what a drain makes of that, is `silence`.

What has been read from one socket goes to the other at once, without a round through the reactor. What the other does
not take waits in its transport, and nothing more is read until all of it has left: so a read may be as large as what a
connection may hold, and a direction holds one read at most. A connection with TLS takes bytes at its own pace, and
pauses the other when it has enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import classImplements, implementer

from nitroproxy.proxy.deadlines import Deadline, Deadlines
from nitroproxy.proxy.record import End
from nitroproxy.proxy.settings import TunnelTimes
from nitroproxy.proxy.silence import Silence
from nitroproxy.proxy.transport import StreamTransport
from nitroproxy.sockets.hangup import SocketTable, has_hung_up, next_read, probe
from nitroproxy.sockets.quick import holds_nothing

#: Seconds that the destination may take for what it is still sent once the client has gone, or may stop for then. A
#: client that is left has more.
_LAST_WORDS: Final = 10.0
#: Seconds in which what has arrived from a connection that was then reset may leave on the other.
_LAST_BYTES: Final = 0.05


class Side:
    """One end of a tunnel, and for the other end's transport the source of its bytes.

    The protocol that owns the connection passes its events to it.
    """

    __slots__ = (
        "_half_closed",
        "_paused",
        "_peer_closed",
        "bytes",
        "gone",
        "idle_socket",
        "other",
        "read_ended",
        "socket",
        "transport",
        "tunnel",
    )

    other: Side

    def __init__(self, transport: StreamTransport, tunnel: Tunnel) -> None:
        self.transport = transport
        self.tunnel = tunnel
        self.bytes = 0
        self.read_ended = False
        self.gone = False
        self._half_closed = False
        self._paused = False
        self._peer_closed = False
        #: The transport when it is a bare socket; None when it is TLS.
        self.socket = _bare_socket(transport)
        #: The same while it is known to hold nothing that has not been sent.
        self.idle_socket: FileDescriptor | None = None

    def feed(self, other: Side) -> None:
        """From now on be the source of *other*'s bytes."""
        self.other = other
        # A pull producer is resumed whenever all has been sent, but also now, when something may still wait.
        other.transport.registerProducer(self, other.socket is None)
        other.idle_socket = other.socket if other.socket is not None and holds_nothing(other.socket) else None

    def received(self, data: bytes) -> None:
        """The connection has delivered *data*."""
        silence = self.tunnel.silence
        if silence.last_sender is not self:
            silence.turn(self, data)
        self.bytes += len(data)
        silence.moved()
        other = self.other
        if other.gone:
            return
        if other.idle_socket is not None:
            sent = other.idle_socket.writeSomeData(data)
            if sent == len(data):
                return
            if isinstance(sent, int):
                data = data[sent:]
            # After an error the transport meets it itself when it tries again.
            other.idle_socket = None
        other.transport.write(data)
        if other.socket is not None:
            self.pauseProducing()

    def pauseProducing(self) -> None:
        """The other connection has enough to send."""
        self._paused = True
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The other connection has sent what it had."""
        self.other.idle_socket = self.other.socket
        if self._paused:
            self._paused = False
            self.tunnel.silence.moved()
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The other connection has gone: its end reaches the tunnel by itself."""

    @property
    def waits(self) -> bool:
        """Bytes of this end wait for the other to take them."""
        return self._paused and not self.other.gone

    def ended(self) -> None:
        """The peer will send no more, but still reads."""
        if self.read_ended:
            return
        self.read_ended = True
        self.tunnel.silence.moved()
        if self.other.gone:
            return
        self.other.transport.unregisterProducer()
        if self.other.read_ended:
            self.tunnel.finish(self.other)
        elif has_hung_up(self.transport, half_closed=self._half_closed):
            self._close()
        else:
            probe(self.transport)
            self.other.half_close()

    def half_close(self) -> None:
        """Send no more."""
        # Twisted's TLS cannot end one direction alone: there the peer does not learn of it.
        if not ISSLTransport.providedBy(self.transport):
            self._half_closed = True
            self.transport.loseWriteConnection()

    def look_for_hangup(self, sockets: SocketTable) -> None:
        """End the connection when its peer has gone unseen: it is not being read, and nothing of it waits."""
        if self.gone or not (self._paused or self.read_ended):
            return
        if self.read_ended and sockets.has_closed(self.transport):
            self._close()
        elif has_hung_up(self.transport, half_closed=self._half_closed):
            try:
                waiting = next_read(self.transport)
            except BlockingIOError:
                return  # It reads no more but may still send: on UNIX sockets and vsock a peer can end that alone.
            if self.read_ended or waiting == b"":
                self._close()
            elif waiting is None:
                self.transport.abortConnection()
            else:
                # What it sent before it closed still waits for the other end to take it: not for as long as it likes.
                self.tunnel.end_if_stuck(self.other)

    def _close(self) -> None:
        """End the connection, whose peer has closed it in order; what came from it still goes to the other."""
        self._peer_closed = True
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def lost(self, reason: Failure) -> None:
        """The connection is gone, both ways."""
        self.gone = True
        self.tunnel.side_lost(self, clean=self._peer_closed or reason.check(ConnectionDone) is not None)


def _bare_socket(transport: object) -> FileDescriptor | None:
    return transport if isinstance(transport, FileDescriptor) else None


# Not by a decorator, which would keep mypyc from making it one of its own classes.
classImplements(Side, IPushProducer, IPullProducer)


class Tunnel:
    """A joined pair of connections.

    :param downstream: the client's transport.
    :param upstream: the other transport.
    :param times: how long it may be silent; a client has `TunnelTimes.idle` for what the destination leaves behind.
    :param on_end: called once, when both connections are gone, with what ended the tunnel.
    """

    def __init__(
        self,
        downstream: StreamTransport,
        upstream: StreamTransport,
        deadlines: Deadlines,
        times: TunnelTimes,
        on_end: Callable[[End], object],
    ) -> None:
        self.downstream = Side(downstream, self)
        self.upstream = Side(upstream, self)
        self.silence = Silence(self.downstream, self.upstream, deadlines, times, self._silent)
        self._deadlines = deadlines
        self._idle = times.idle
        self._on_end = on_end
        #: What ends the tunnel; None while it lasts.
        self._end: End | None = None
        #: Of the second connection, once the first has gone.
        self._last_words: Deadline | None = None
        self.upstream.feed(self.downstream)
        self.downstream.feed(self.upstream)
        self.silence.watch()

    @property
    def in_reserve(self) -> bool:
        """A drain takes it for a connection that its client keeps in reserve."""
        return self.silence.in_reserve

    def look_for_hangup(self, sockets: SocketTable) -> None:
        """End the tunnel when one of its peers has gone unseen. The listener calls this now and then."""
        self.downstream.look_for_hangup(sockets)
        self.upstream.look_for_hangup(sockets)

    def end_if_stuck(self, reader: Side) -> None:
        """End both connections when *reader* has taken nothing for as long as last words may take."""
        if self.silence.lasted(self._patience(reader)):
            self._ends_by(End.CLIENT_STOPPED_READING, End.UPSTREAM_STOPPED_READING, reader)
            self.abort()

    def _ends_by(self, client: End, upstream: End, side: Side) -> None:
        """Note what ends the tunnel: *client* or *upstream*, depending on *side*. The first reason counts."""
        if self._end is None:
            self._end = client if side is self.downstream else upstream

    def abort(self) -> None:
        """End both connections at once."""
        for side in (self.downstream, self.upstream):
            if not side.gone:
                side.transport.unregisterProducer()
                side.transport.abortConnection()

    def drain(self) -> None:
        """From now on end when in reserve; see `silence`."""
        self.silence.drain()

    def _silent(self, end: End) -> None:
        self._end = end
        self.abort()

    def finish(self, first: Side) -> None:
        """End both connections once each has sent what it holds.

        :param first: the end that ended its direction first.
        """
        self._ends_by(End.CLIENT_CLOSED, End.UPSTREAM_CLOSED, first)
        for side in (self.downstream, self.upstream):
            if not side.gone:
                side.transport.unregisterProducer()
                side.transport.loseConnection()
        self._bound_last_words(self._patience(self.downstream))

    def side_lost(self, side: Side, *, clean: bool) -> None:
        """One connection has gone: the other follows, after its last bytes when the first ended cleanly."""
        other = side.other
        if other.gone:
            if self._last_words is not None:
                self._last_words.cancel()
            assert self._end is not None
            self._on_end(self._end)
            return
        other.transport.unregisterProducer()
        if clean:
            self._ends_by(End.CLIENT_CLOSED, End.UPSTREAM_CLOSED, side)
            other.transport.loseConnection()
            self._bound_last_words(self._patience(other))
        else:
            # An abort, but not of what had arrived before it.
            self._ends_by(End.CLIENT_RESET, End.UPSTREAM_RESET, side)
            other.transport.pauseProducing()
            self._bound_last_words(_LAST_BYTES)

    def _patience(self, reader: Side) -> float:
        """Seconds that *reader* has for what it is still sent: a client that reads slowly loses nothing because the
        destination was faster. Who has gone holds a destination no longer than `_LAST_WORDS`."""
        return max(self._idle, _LAST_WORDS) if reader is self.downstream else _LAST_WORDS

    def _bound_last_words(self, seconds: float) -> None:
        self.silence.stop()
        if self._last_words is not None:
            self._last_words.cancel()
        self._last_words = self._deadlines.after(seconds, self.abort)


@implementer(IHalfCloseableProtocol)
class TunnelProtocol(Protocol):
    """The protocol of a connection that is dialled only to become a tunnel's upstream `Side`."""

    transport: StreamTransport  # type: ignore[assignment]  # Twisted types it as the least it can be

    def __init__(self) -> None:
        self._side: Side | None = None
        self._early: list[bytes] = []
        self._ended = False
        self._lost: Failure | None = None

    def join(self, side: Side) -> None:
        """From now on pass the connection's events to *side*, those that came earlier too."""
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
