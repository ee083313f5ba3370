"""Where log lines leave the process: a file descriptor that may block, so a thread of its own writes to it.

Lines wait in a queue that is bounded in bytes. When the descriptor's reader does not keep up and the queue is full, or
when writing fails, lines are dropped and counted, and a later line says how many.
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

#: Bytes that may wait, by default: half a minute of a busy daemon's log.
QUEUE_BYTES: Final = 8 * 1024 * 1024
#: Bytes of memory that a line takes besides its own: the object and its place in the queue.
LINE_OVERHEAD: Final = 64


def size_of(line: bytes) -> int:
    """Bytes of memory that *line* takes while it waits."""
    return len(line) + LINE_OVERHEAD


class LogSink:
    """Writes lines to a descriptor.

    :param descriptor: a file, pipe, terminal or socket in blocking mode.
    :param notice: makes the line that reports so many dropped ones.
    :param most: bytes of memory for the lines that wait or are being written.
    """

    def __init__(self, descriptor: int, notice: Callable[[int], bytes], most: int = QUEUE_BYTES) -> None:
        self._descriptor = descriptor
        self._notice = notice
        self._most = most
        self._had_no_place = 0
        # Counters with one writer each: `write`'s caller, or the thread.
        self._not_written = 0
        self._reported = 0
        self._taken_bytes = 0
        self._done_bytes = 0
        self._waiting: deque[bytes] = deque()
        self._wake = threading.Event()
        self._progress = threading.Condition()
        self._ending = False
        self._thread: threading.Thread | None = None
        self._pid = 0

    @property
    def dropped(self) -> int:
        """Lines that had no place or could not be written, in all."""
        return self._had_no_place + self._not_written

    def write(self, line: bytes) -> None:
        """Take *line*, which ends in a newline; never blocks. From one thread only."""
        size = size_of(line)
        if self._taken_bytes - self._done_bytes + size > self._most:
            self._had_no_place += 1
            return
        if self._pid != os.getpid():
            self._start()  # The first line, or the first after a fork, which threads do not survive.
        self._taken_bytes += size
        self._waiting.append(line)
        self._wake.set()

    def _start(self) -> None:
        self._pid = os.getpid()
        # What waited at the fork is for the parent to write, and the parent's thread may have held the locks.
        self._waiting.clear()
        self._taken_bytes = self._done_bytes = 0
        self._wake, self._progress = threading.Event(), threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log sink", daemon=True)
        self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Wait until all lines that have been taken are written or dropped. From the thread that writes.

        :param timeout: seconds to wait for a reader that does not keep up.
        :returns: whether they are.
        """
        if self._thread is None:
            return True
        taken = self._taken_bytes
        self._ending = True
        self._wake.set()
        with self._progress:
            return self._progress.wait_for(lambda: self._done_bytes >= taken, timeout)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if not self._ending:
                time.sleep(_GATHER)
            self._wake.clear()
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            lost = self.dropped - self._reported
            notices = [self._notice(lost)] if lost else []
            whole = self._write_all(lines + notices)
            if whole == len(lines + notices):
                self._reported += lost
            self._not_written += max(len(lines) - whole, 0)
            with self._progress:
                self._done_bytes += sum(map(size_of, lines))
                self._ending = self._ending and bool(self._waiting)
                self._progress.notify_all()

    def _write_all(self, lines: list[bytes]) -> int:
        """Write *lines*; how many were written whole before that failed."""
        written = 0
        for piece in _pieces(lines):
            left = memoryview(piece)
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:
                    time.sleep(_GATHER)  # Another process made it non-blocking, perhaps at a terminal's other end.
                except OSError:  # The reader has gone, or the disk is full.
                    return bisect_right(list(accumulate(map(len, lines))), written + len(piece) - len(left))
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
