"""How long a tunnel may be silent, and what its silence means while the listener drains.

The rule (`TunnelTimes`): a tunnel in which nothing moves ends after `silent` seconds; after `unanswered` when the
client may be waiting for a response, which is no idleness; after `idle` when it is half-closed, or when one end does
not take what the other has sent. While the listener drains, a tunnel that is quiet for a few seconds is taken for a
connection that its client keeps in reserve, unless the client may be waiting.

The client may be waiting when it sent last. In a tunnel that carries TLS it may also be when little has come since its
second flight: that can be session tickets, which a server sends before it answers the first request (RFC 8446 section
4.6.1). Beyond the first two bytes nothing looks at what is in a tunnel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from nitroproxy.proxy.deadlines import Deadline, Deadlines
from nitroproxy.proxy.record import End
from nitroproxy.proxy.settings import TunnelTimes

#: Seconds of silence after which a drain takes a tunnel for a connection in reserve.
_QUIET: Final = 5.0
#: Bytes of the session tickets that a TLS server sends: OpenSSL two of 255 each. With an answer it is usually more, so
#: that few connections in reserve are taken for ones that wait.
_TICKETS: Final = 768
#: How a client begins that begins TLS (RFC 8446 section 5.1).
_TLS: Final = b"\x16\x03"


class Watched(Protocol):
    """One end of the tunnel.

    :ivar bytes: that it has sent so far.
    :ivar read_ended: it will send no more.
    """

    bytes: int
    read_ended: bool

    @property
    def waits(self) -> bool:
        """Bytes of this end wait for the other to take them."""


class Silence:
    """Watches one tunnel.

    :param client: its one end.
    :param other: its other end.
    :param on_end: called when it has been silent for too long, with what that is in the record.
    :ivar last_sender: the end that has sent something last; None before either has.
    """

    __slots__ = (
        "_before",
        "_client",
        "_deadline",
        "_deadlines",
        "_draining",
        "_flights",
        "_last_moved",
        "_on_end",
        "_other",
        "_times",
        "_tls",
        "last_sender",
    )

    def __init__(
        self,
        client: Watched,
        other: Watched,
        deadlines: Deadlines,
        times: TunnelTimes,
        on_end: Callable[[End], object],
    ) -> None:
        self._client = client
        self._other = other
        self._deadlines = deadlines
        self._times = times
        self._on_end = on_end
        self._draining = False
        self._deadline: Deadline | None = None
        self._last_moved = deadlines.seconds()
        self.last_sender: Watched | None = None
        #: How often the client has begun to send, what the other end had sent the last time, and whether it is TLS.
        self._flights = 0
        self._before = 0
        self._tls = False

    def watch(self) -> None:
        """Begin: both ends are in place."""
        self._look_later(self._last_moved)

    def stop(self) -> None:
        """The tunnel is being ended, for whatever reason."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def moved(self) -> None:
        """Something has moved."""
        self._last_moved = self._deadlines.seconds()

    def turn(self, sender: Watched, data: bytes) -> None:
        """It is now *sender* that sends, beginning with *data*, where before it was the other end."""
        self.last_sender = sender
        if sender is self._client:
            self._flights += 1
            self._before = self._other.bytes
            if self._flights == 1:
                self._tls = data.startswith(_TLS)

    def lasted(self, seconds: float) -> bool:
        """Nothing has moved for *seconds*."""
        return self._deadlines.seconds() - self._last_moved >= seconds

    @property
    def in_reserve(self) -> bool:
        """The tunnel has been quiet for so long that a drain takes it for a connection that its client keeps."""
        return self._spare and self.lasted(_QUIET)

    def drain(self) -> None:
        """From now on the tunnel ends when it is in reserve."""
        self._draining = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._look()

    @property
    def _unanswered(self) -> bool:
        """The client may be waiting for a response."""
        if self.last_sender is self._client:
            return True
        return self._tls and self._flights <= 2 and self._other.bytes - self._before <= _TICKETS

    @property
    def _spare(self) -> bool:
        """No response is outstanding, and every byte has been taken."""
        return not self._unanswered and not self._client.waits and not self._other.waits

    def _allowed(self) -> tuple[float, End]:
        """Seconds that the tunnel may be silent as it is now, and what ends it then."""
        if self._other.waits:
            return self._times.idle, End.CLIENT_STOPPED_READING
        if self._client.waits:
            return self._times.idle, End.UPSTREAM_STOPPED_READING
        if self._draining and self._spare:
            return min(_QUIET, self._times.silent), End.DRAINED
        if self._client.read_ended or self._other.read_ended:
            return self._times.idle, End.IDLE_TIMEOUT
        return self._times.unanswered if self._unanswered else self._times.silent, End.TUNNEL_TIMEOUT

    def _look_later(self, now: float) -> None:
        # Never later than the shortest time that may be needed next: a new deadline with each byte would cost too much.
        shortest = min(self._times.idle, _QUIET) if self._draining else self._times.idle
        left = self._last_moved + self._allowed()[0] - now
        self._deadline = self._deadlines.after(min(left, shortest), self._look)

    def _look(self) -> None:
        self._deadline = None
        now = self._deadlines.seconds()
        seconds, end = self._allowed()
        if now >= self._last_moved + seconds:
            self._on_end(end)
        else:
            self._look_later(now)
