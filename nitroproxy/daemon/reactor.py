"""Twisted's epoll reactor on the monotonic clock and with a short cut for writing: ``twistd --reactor=nitroproxy``.

Twisted's reactors keep time by the system's clock, which steps, in enclaves at start-up and after a pause. Set back, it
would delay every deadline and the watchdog's keep-alive; set forward, it would end what is under way. This one does not
notice.

The stock reactor asks epoll before every write: it adds the descriptor, polls, sends, and takes it away again, three
system calls around the one that matters. A proxy's sockets almost always have room. So here a connected writer is let
write once at the end of the turn in which it asked to, after all that could be read has been, and only when something
is left is epoll asked. It is still the reactor that calls ``doWrite``, never ``write`` itself.

What is dialled has the transports of `nitroproxy.sockets.quick`. No event is wrapped in a context for the legacy log's
prefix, of which nothing in nitroproxy makes use.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from select import EPOLLIN
from typing import Any, cast

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.internet.main import installReactor
from twisted.logger import Logger

from nitroproxy.sockets.quick import TCPConnector, UNIXConnector

_log = Logger()


class EagerReactor(EPollReactor):
    """See the module."""

    #: `IReactorTime`'s clock, in seconds since no particular moment.
    seconds = staticmethod(time.monotonic)

    def __init__(self) -> None:
        #: Those that want to write and have not been let.
        self._eager: dict[IWriteDescriptor, None] = {}
        #: The part of them whose turn it is.
        self._turn: dict[IWriteDescriptor, None] = {}
        #: The one that is writing now, until it says that it has no more.
        self._writing: IWriteDescriptor | None = None
        super().__init__()

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        """See `IReactorTCP`."""
        connector = TCPConnector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def connectUNIX(self, address: str, factory: Any, timeout: float = 30, checkPID: int = 0) -> Any:
        """See `IReactorUNIX`."""
        connector = UNIXConnector(address, factory, timeout, self, checkPID)
        connector.connect()
        return connector

    def readInsteadOfWriting(self, descriptor: Any) -> None:
        """Watch *descriptor*, whose connection has been made, for input, and for room to write no more."""
        number = descriptor.fileno()
        self._poller.modify(number, EPOLLIN)
        self._writes.discard(number)
        self._reads.add(number)

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """Have *writer* write as soon as it can: see `IReactorFDSet`."""
        if not getattr(writer, "connected", False) or self._continuousPolling.isWriting(writer):
            super().addWriter(writer)  # For one that still connects, to be writable is news.
        elif writer is not self._writing and writer not in self._turn and writer.fileno() not in self._writes:
            self._eager[writer] = None

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        """*writer* has no more to write: see `IReactorFDSet`."""
        if writer is self._writing:
            self._writing = None
        elif writer in self._eager:
            del self._eager[writer]
        else:
            self._turn.pop(writer, None)
            super().removeWriter(writer)

    def removeAll(self) -> list[IReadDescriptor | IWriteDescriptor]:
        """Forget every descriptor but the reactor's own: see `IReactorFDSet`."""
        eager = [*self._eager, *self._turn]
        self._eager.clear()
        self._turn.clear()
        watched = cast(list[IReadDescriptor | IWriteDescriptor], super().removeAll())
        return watched + [writer for writer in eager if writer not in watched]

    def getWriters(self) -> list[IWriteDescriptor]:
        """All that want to write: see `IReactorFDSet`."""
        return [*super().getWriters(), *self._eager, *self._turn]

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events and have them handled, then let those write that want to.

        :param timeout: seconds to wait at most; None: until there is an event.
        """
        if self._eager:
            timeout = 0  # They asked between two turns, or while others wrote.
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, len(self._selectables))
        except OSError as interrupted:
            if interrupted.errno != errno.EINTR:
                raise
            events = []
        selectables = self._selectables
        # Within the turn a descriptor may be closed, and its number be another's, whose event it is not.
        reported = [(selectables.get(descriptor), descriptor, event) for descriptor, event in events]
        for selectable, descriptor, event in reported:
            if selectable is not None and selectables.get(descriptor) is selectable:
                try:
                    self._doReadOrWrite(selectable, descriptor, event)
                except Exception:
                    _log.failure("ending a connection failed", event="callback_failed")
        if self._eager:
            self._write_now()

    doIteration = doPoll

    def _write_now(self) -> None:
        turn, self._eager = self._eager, self._turn
        self._turn = turn
        while turn:
            writer = self._writing = turn.popitem()[0]
            try:
                # As the stock reactor has it: what it raises ends the connection, like what it returns.
                lost: Any = self._let(writer.doWrite)
                unfinished, self._writing = self._writing is not None, None
                if lost:
                    self._lose(writer, lost)
                elif unfinished:
                    super().addWriter(writer)
            except Exception:
                _log.failure("ending a connection failed", event="callback_failed")
            finally:
                self._writing = None

    def _lose(self, writer: Any, lost: Any) -> None:
        """The peer may have had a last word before it stopped reading: read it. The stock reactor reads first, too."""
        if writer.fileno() in self._reads:
            self._let(writer.doRead)
        if writer.fileno() != -1:
            self._disconnectSelectable(writer, lost, False)

    @staticmethod
    def _let(operation: Callable[[], Any]) -> Any:
        try:
            return operation()
        except Exception:
            _log.failure("a connection's callback failed", event="callback_failed")
            return sys.exc_info()[1]


def install() -> None:
    """Make an `EagerReactor` the reactor of this process."""
    installReactor(EagerReactor())


def keeps_monotonic_time(reactor: Any) -> bool:
    """Whether *reactor*'s timers are independent of the system's clock, as an `EagerReactor`'s are."""
    return reactor.seconds is time.monotonic
