"""Where log lines leave the process: a file descriptor that may block, written by a thread, so that nobody else does.

Lines wait in a bounded queue. When the reader of the descriptor does not keep up and the queue is full, lines are
dropped and counted, and the next line that passes says how many were.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

#: Seconds over which lines are collected before they are written in one go.
_GATHER: Final = 0.02


class LogSink:
    """Writes lines to a descriptor.

    :param descriptor: a file, pipe, terminal or socket in blocking mode.
    :param notice: makes the line that tells of so many dropped ones.
    :param most: lines that may wait.
    :ivar dropped: lines that had no place, in all.
    """

    def __init__(self, descriptor: int, notice: Callable[[int], bytes], most: int = 20_000) -> None:
        self.dropped = 0
        self._told = 0
        self._descriptor = descriptor
        self._notice = notice
        self._most = most
        self._waiting: deque[bytes] = deque()
        self._wake = threading.Event()
        self._idle = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None
        self._pid = 0

    def write(self, line: bytes) -> None:
        """Take *line*, which ends in a newline; never blocks. From one thread only."""
        if len(self._waiting) >= self._most:
            self.dropped += 1
            return
        if self._pid != os.getpid():
            self._start()  # The first line, or the first after a fork, which threads do not survive.
        self._waiting.append(line)
        if not self._wake.is_set():
            self._idle.clear()
            self._wake.set()

    def _start(self) -> None:
        self._pid = os.getpid()
        # What waited at the fork is for the parent to write; and its thread may have held these.
        self._waiting.clear()
        self._wake, self._idle = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="log sink", daemon=True)
        self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Wait until all that waits has been written.

        :param timeout: seconds to wait for a reader that does not keep up.
        :returns: whether it has been.
        """
        self._ending = True
        self._wake.set()
        return self._thread is None or self._idle.wait(timeout)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if not self._ending:
                time.sleep(_GATHER)
            self._wake.clear()
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            lost = self.dropped - self._told
            if lost:
                self._told += lost
                lines.append(self._notice(lost))
            self._write_all(b"".join(lines))
            if not self._waiting:
                self._ending = False
                self._idle.set()

    def _write_all(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                time.sleep(_GATHER)  # Somebody made it non-blocking, perhaps the other end of a terminal.
            except OSError:
                return  # Nobody reads any more, and there is nowhere to say so.
