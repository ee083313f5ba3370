"""Where log lines leave the process: a file descriptor that may block, written by a thread, so that nobody else does.

Lines wait in a bounded queue. When the reader of the descriptor does not keep up and the queue is full, or writing
fails, lines are dropped and counted, and the next line that passes says how many were.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

#: Bytes that a pipe takes in one go, so that other processes that write to it do not come in between (PIPE_BUF).
_WHOLE: Final = 4096

#: Seconds over which lines are collected before they are written in one go.
_GATHER: Final = 0.02


class LogSink:
    """Writes lines to a descriptor.

    :param descriptor: a file, pipe, terminal or socket in blocking mode.
    :param notice: makes the line that tells of so many dropped ones.
    :param most: lines that may wait.
    """

    def __init__(self, descriptor: int, notice: Callable[[int], bytes], most: int = 20_000) -> None:
        self._had_no_place = 0
        self._not_written = 0  # The thread's, as the other is not: neither is lost when both count.
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

    @property
    def dropped(self) -> int:
        """Lines that had no place or could not be written, in all."""
        return self._had_no_place + self._not_written

    def write(self, line: bytes) -> None:
        """Take *line*, which ends in a newline; never blocks. From one thread only."""
        if len(self._waiting) >= self._most:
            self._had_no_place += 1
            return
        self._waiting.append(line)
        if not self._wake.is_set():
            self._idle.clear()
            if self._pid != os.getpid():
                self._start()  # The first line, or the first after a fork, which threads do not survive.
            self._wake.set()

    def _start(self) -> None:
        self._pid = os.getpid()
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
            told = [self._notice(lost)] if lost else []
            written = self._write_all(lines + told)
            if written == len(lines + told):
                self._told += lost
            self._not_written += max(len(lines) - written, 0)
            if not self._waiting:
                self._ending = False
                self._idle.set()

    def _write_all(self, lines: list[bytes]) -> int:
        """Write *lines*; how many of them were written whole before that failed."""
        written = 0
        for piece in _pieces(lines):
            left = memoryview(piece)
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:
                    time.sleep(_GATHER)  # Somebody made it non-blocking, perhaps the other end of a terminal.
                except OSError:  # Nobody reads any more, or the disk is full.
                    written += len(piece) - len(left)
                    return bisect_right(list(accumulate(map(len, lines))), written)
            written += len(piece)
        return len(lines)


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    """*lines* joined, as many as a pipe takes whole; a longer line is a piece of its own."""
    start = size = 0
    for number, line in enumerate(lines):
        if size + len(line) > _WHOLE and number > start:
            yield b"".join(lines[start:number])
            start, size = number, 0
        size += len(line)
    if start < len(lines):
        yield b"".join(lines[start:])
