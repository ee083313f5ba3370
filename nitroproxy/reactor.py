"""Twisted's epoll reactor with a short cut for writing: ``twistd --reactor=nitroproxy``.

The stock reactor asks epoll before every write: it adds the descriptor, polls, sends, and takes it away again, three
system calls around the one that matters. A proxy's sockets almost always have room. So here a writer is let write
once, when everything that could be read has been, and only when something is left is epoll asked. A program sees no
difference: it is still the reactor that calls ``doWrite``, never ``write`` itself.

Nor does it wrap each event in a context for the legacy log's prefix, of which nothing in nitroproxy makes use.
"""

from __future__ import annotations

import errno
import sys
from typing import Any, cast

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.internet.main import installReactor
from twisted.logger import Logger

_log = Logger()


class EagerReactor(EPollReactor):
    """See the module."""

    def __init__(self) -> None:
        #: Those that want to write and have not been let.
        self._eager: dict[IWriteDescriptor, None] = {}
        #: The part of them whose turn it is.
        self._turn: dict[IWriteDescriptor, None] = {}
        #: The one that is writing now, until it says that it has no more.
        self._writing: IWriteDescriptor | None = None
        super().__init__()

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """Have *writer* write as soon as it can: see `IReactorFDSet`."""
        if writer is not self._writing and writer not in self._turn and writer.fileno() not in self._writes:
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
        """Let those write that want to, then wait for events and have them handled.

        :param timeout: seconds to wait at most; None: until there is one.
        """
        if self._eager:
            self._write_now()
            timeout = self._patience(timeout)
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, len(self._selectables))
        except OSError as interrupted:
            if interrupted.errno != errno.EINTR:
                raise
            return
        selectables = self._selectables
        for descriptor, event in events:
            selectable = selectables.get(descriptor)
            if selectable is not None:
                try:
                    self._doReadOrWrite(selectable, descriptor, event)
                except Exception:
                    _log.failure("ending a connection failed", event="callback_failed")

    doIteration = doPoll

    def _patience(self, timeout: float | None) -> float | None:
        """How long to wait after all: those that wrote may have asked for more than was known when *timeout* was."""
        if self._eager or self._justStopped or not self._started:
            return 0
        due = self.timeout()
        if timeout is None or due is None:
            return due if timeout is None else timeout
        return min(timeout, due)

    def _write_now(self) -> None:
        turn, self._eager = self._eager, self._turn
        self._turn = turn
        while turn:
            writer = self._writing = turn.popitem()[0]
            try:
                # As the stock reactor has it: what it raises ends the connection, like what it returns.
                lost: Any = self._let_write(writer)
                if lost:
                    self._writing = None
                    self._disconnectSelectable(writer, lost, False)
                elif self._writing is not None:
                    super().addWriter(writer)
            except Exception:
                _log.failure("ending a connection failed", event="callback_failed")
            finally:
                self._writing = None

    @staticmethod
    def _let_write(writer: IWriteDescriptor) -> Any:
        try:
            return writer.doWrite()
        except Exception:
            _log.failure("writing to a connection failed", event="callback_failed")
            return sys.exc_info()[1]


def install() -> None:
    """Make an `EagerReactor` the reactor of this process."""
    installReactor(EagerReactor())
