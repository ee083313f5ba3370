"""The ways in which a client's connection ends: each lets the client see what it must see, and each in bounded time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nitroproxy.proxy.deadlines import Deadline, Deadlines
from nitroproxy.proxy.transport import StreamTransport

#: Seconds that a client may go on sending to a connection once its last response has left.
_LINGER: Final = 2.0
#: Seconds in which what has been written of a broken response may leave.
_LAST_BYTES: Final = 0.05


class Closing:
    """Ends the connection of *transport*.

    :param abort: ends it at once.
    """

    def __init__(self, transport: StreamTransport, deadlines: Deadlines, abort: Callable[[], object]) -> None:
        self._transport = transport
        self._deadlines = deadlines
        self._abort = abort
        self._deadline: Deadline | None = None
        self._lingering = False

    def close(self, patience: float) -> None:
        """End when what has been written has left, which a client that does not read cannot put off.

        :param patience: seconds for that.
        """
        self._transport.unregisterProducer()
        self._transport.loseConnection()
        self._within(patience)

    def linger(self, patience: float) -> None:
        """Close without a reset overtaking the response (RFC 9112 section 9.6): stop writing, read on and forget it.

        :param patience: seconds for the response to leave.
        """
        self._lingering = True
        self._transport.unregisterProducer()
        self._transport.loseWriteConnection()
        self._within(patience)

    def response_left(self) -> None:
        """The half-close has been carried out."""
        if self._lingering:
            self._within(_LINGER)

    def break_off(self) -> None:
        """End so that nobody takes the response for complete; but a moment later: where an abort is but a close, its
        head would else not get out and the failure be told as another."""
        self._transport.unregisterProducer()
        self._within(_LAST_BYTES)

    def over(self) -> None:
        """The connection has ended."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _within(self, seconds: float) -> None:
        self.over()
        self._deadline = self._deadlines.after(seconds, self._abort)
