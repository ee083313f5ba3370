"""How many connections each of several processes has, in memory that they share, so that none takes far more than the
others.

Whoever turns first accepts, and in a burst that is often the same one. Clients that keep their connections would then
keep one process busy and the others idle.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Final

#: Bytes of a number, and connections that one may have more than another, besides an eighth.
_SIZE: Final = 8
_SLACK: Final = 1


def shared_memory(processes: int, places: int) -> int:
    """A descriptor of memory for the numbers of so many processes at so many places; all are 0."""
    descriptor = os.memfd_create("nitroproxy-connections")
    os.ftruncate(descriptor, processes * places * _SIZE)
    return descriptor


class Share:
    """One process's share of a place's connections.

    :param descriptor: from `shared_memory`; stays open.
    :param process: which one it is, from 0 on.
    :param connections: tells how many it has.
    """

    def __init__(
        self, descriptor: int, processes: int, place: int, process: int, connections: Callable[[], int]
    ) -> None:
        whole = memoryview(mmap.mmap(descriptor, 0)).cast("q")
        self._numbers = whole[place * processes : (place + 1) * processes]
        self._process = process
        self._connections = connections

    def is_taken(self) -> bool:
        """Whether this process has so many that the next one is another's."""
        mine = self._numbers[self._process] = self._connections()
        least = min(self._numbers)
        return mine > least + _SLACK + least // 8
