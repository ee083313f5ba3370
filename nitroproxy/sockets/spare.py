"""Descriptors kept back, so that a listener can still accept when the process has used up all others.

Twisted then accepts what waits and closes it at once: health checks are reset, and an orchestrator restarts a daemon
that only needs a moment. Here a connection is accepted on a spare descriptor, for the listener to answer briefly; and
when no spare is left, the listener leaves the queue alone for a moment instead of emptying it or turning in circles.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from io import FileIO
from typing import Any, Final

from twisted.logger import Logger

_log: Final = Logger()

#: Descriptors that one listener keeps back.
COUNT: Final = 16
#: Seconds until the queue is looked at again.
MOMENT: Final = 0.1
#: Errors of accept() for want of descriptors, and for want of memory.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE})
_SHORT: Final = _EXHAUSTED | {errno.ENOBUFS, errno.ENOMEM}


class SpareDescriptors:
    """Descriptors that are open without a use, until they are needed."""

    def __init__(self) -> None:
        self._wanted = 0
        self._held: list[FileIO] = []

    def keep(self, count: int = COUNT) -> None:
        """Keep back *count* from now on."""
        self._wanted = count
        self.fill()

    def fill(self) -> bool:
        """Take back what has been released, as far as there are descriptors; whether all that are wanted are held."""
        try:
            while len(self._held) < self._wanted:
                self._held.append(FileIO(os.devnull))
        except OSError:
            return False
        return True

    def release(self) -> bool:
        """Make room for one descriptor; whether there was one to release."""
        if not self._held:
            return False
        self._held.pop().close()
        return True

    def close(self) -> None:
        """Release all, and keep none back any more."""
        self._wanted = 0
        while self.release():
            pass


class SparingSocket:
    """A listening socket that accepts on spare descriptors when there are no others: stands in for a port's own.

    :param port: a listening port of Twisted's.
    :param make_way: called before the queue is looked at again while not all spare descriptors are back: may end
        connections to free some.
    """

    def __init__(self, port: Any, spare: SpareDescriptors, make_way: Callable[[], object]) -> None:
        self._port = port
        self._socket: socket.socket = port.socket
        self._spare = spare
        self._make_way = make_way
        self._short = False
        spare.keep()
        port.socket = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def accept(self) -> tuple[socket.socket, Any]:
        """See `socket.socket.accept`.

        :raises BlockingIOError: when there is nothing to accept, or nothing to accept it with.
        """
        try:
            accepted = self._socket.accept()
        except OSError as error:
            if error.errno not in _SHORT:
                raise
            return self._accept_on_spare(error)
        self._short = False
        return accepted

    def _accept_on_spare(self, error: OSError) -> tuple[socket.socket, Any]:
        if not self._short:
            self._short = True
            text = "cannot accept connections as usual: {reason}; for now only own pages are served"
            _log.warn(text, event="descriptors_exhausted", reason=os.strerror(error.errno or 0))
        if error.errno in _EXHAUSTED and self._spare.release():
            try:
                return self._socket.accept()
            except OSError as again:
                self._spare.fill()
                if again.errno not in _SHORT:
                    raise
        self._pause()
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error

    def _pause(self) -> None:
        port = self._port
        port.stopReading()
        port.leaves = True
        port.reactor.callLater(MOMENT, self._resume)

    def _resume(self) -> None:
        port = self._port
        port.leaves = False
        if port.connected:
            if not self._spare.fill():
                self._make_way()
            port.startReading()

    def close(self) -> None:
        """See `socket.socket.close`; lets go of the spare descriptors too."""
        self._spare.close()
        self._socket.close()
