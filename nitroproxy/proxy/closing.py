"""The ways in which a client's connection ends: each lets the client see what it has to see, in bounded time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nitroproxy.proxy.deadlines import Alarm
from nitroproxy.proxy.transport import StreamTransport

#: Seconds that a client may go on sending to a connection once its last response has left.
_LINGER: Final = 2.0
#: Seconds in which what has been written of a broken response may leave.
_LAST_BYTES: Final = 0.05


class Closing:
    """Ends the connection of *transport*. The client's connection calls one of `close`, `linger` and `break_off`, once.

    :param alarm: the client's.
    :param abort: ends the connection at once; called when the time is over.
    """

    def __init__(self, transport: StreamTransport, alarm: Alarm, abort: Callable[[], object]) -> None:
        self._transport = transport
        self._alarm = alarm
        self._abort = abort
        self._lingering = False

    def close(self, patience: float) -> None:
        """End once everything written has left.

        :param patience: seconds for that; then a client that does not read loses the rest.
        """
        self._transport.unregisterProducer()
        self._transport.loseConnection()
        self._alarm.set(patience, self._abort)

    def linger(self, patience: float) -> None:
        """Stop writing, and go on reading and discarding, so that no reset overtakes the response (RFC 9112 section
        9.6).

        :param patience: seconds for the response to leave.
        """
        self._lingering = True
        self._transport.unregisterProducer()
        self._transport.loseWriteConnection()
        self._alarm.set(patience, self._abort)

    def response_left(self) -> None:
        """The half-close has been carried out."""
        if self._lingering:
            self._alarm.set(_LINGER, self._abort)

    def break_off(self) -> None:
        """Abort, so that the response cannot be taken for complete, but a moment later: where an abort is only a close,
        the response's head would otherwise not leave, and the next hop would report another failure."""
        self._transport.unregisterProducer()
        self._alarm.set(_LAST_BYTES, self._abort)
