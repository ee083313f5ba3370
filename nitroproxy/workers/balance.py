"""How many connections each worker has, in memory that they share, so that none takes far more than the others.

The worker whose reactor turns first accepts, and in a burst that is often the same one. Clients that keep their
connections would then keep one worker busy and the others idle.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Final

#: Bytes of a number, and connections that a worker may have more than another, besides an eighth.
_SIZE: Final = 8
_SLACK: Final = 1
#: The number of a worker that does not run or does not answer: connections are not left to it.
_ABSENT: Final = -1


class SharedCounts:
    """The memory, as the supervisor has it. All workers are absent at first.

    :param places: at how many places they accept.
    :ivar descriptor: the memory's, for the workers.
    """

    def __init__(self, workers: int, places: int) -> None:
        self.descriptor = os.memfd_create("nitroproxy-connections")
        os.ftruncate(self.descriptor, workers * places * _SIZE)
        self._numbers = memoryview(mmap.mmap(self.descriptor, 0)).cast("q")
        self._workers = workers
        for worker in range(workers):
            self.forget(worker)

    def forget(self, worker: int) -> None:
        """A worker, counted from 0, has died or hangs; it counts again when it next looks at its share."""
        for index in range(worker, len(self._numbers), self._workers):
            self._numbers[index] = _ABSENT


class Share:
    """One worker's share of a place's connections.

    :param descriptor: from `SharedCounts`; stays open.
    :param worker: which one it is, from 0 on.
    :param connections: gives how many it has.
    """

    def __init__(self, descriptor: int, workers: int, place: int, worker: int, connections: Callable[[], int]) -> None:
        whole = memoryview(mmap.mmap(descriptor, 0)).cast("q")
        self._numbers = whole[place * workers : (place + 1) * workers]
        self._worker = worker
        self._connections = connections

    def is_taken(self) -> bool:
        """Whether to leave the next connection to another worker, because one has clearly fewer."""
        mine = self._numbers[self._worker] = self._connections()
        least = min(number for number in self._numbers if number != _ABSENT)
        return mine > least + _SLACK + least // 8
