"""Deadlines for very many connections: one coarse timer wheel instead of a reactor timer for each.

Setting or cancelling one is a set operation. A deadline fires up to one tick late, never early. The clock must be a
monotonic one: see `nitroproxy.daemon.reactor`. Knows nothing of what the deadlines are for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_log: Final = Logger()

#: Seconds between two looks at the clock.
TICK: Final = 0.05


class Deadline:
    """One pending call, made by `Deadlines.after`."""

    __slots__ = ("_callback", "_slot")

    def __init__(self, slot: set[Deadline], callback: Callable[[], object]) -> None:
        self._slot = slot
        self._callback = callback
        slot.add(self)

    def cancel(self) -> None:
        """Do not call it. Has no effect when it has been called or cancelled already."""
        self._slot.discard(self)

    def fire(self) -> None:
        """Call now. Only `Deadlines` does this."""
        self._callback()


class Deadlines:
    """A timer wheel on *clock*.

    :ivar seconds: gives the clock's time, in seconds.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.seconds: Callable[[], float] = clock.seconds
        self._slots: dict[int, set[Deadline]] = {}
        self._turning: set[Deadline] = set()
        self._next: IDelayedCall | None = None
        self._stopped = False

    def after(self, seconds: float, callback: Callable[[], object]) -> Deadline:
        """Call *callback* once *seconds* have passed, at most a tick late.

        An exception that it raises is logged, and stops no other deadline. It may set and cancel deadlines.
        """
        tick = math.ceil((self.seconds() + seconds) / TICK)
        slot = self._slots.get(tick)
        if slot is None:
            slot = self._slots[tick] = set()
        if self._next is None and not self._stopped:
            self._next = self._clock.callLater(TICK, self._turn)
        return Deadline(slot, callback)

    def stop(self) -> None:
        """Forget every deadline, and those set from now on: the daemon ends."""
        self._stopped = True
        self._slots = {}
        self._turning.clear()
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _turn(self) -> None:
        self._next = None
        now = math.floor(self.seconds() / TICK)
        for tick in sorted(tick for tick in self._slots if tick <= now):
            slot = self._slots.pop(tick, None)
            if slot is None:
                return  # A callback has stopped it all.
            self._turning = slot
            while slot:
                deadline = slot.pop()
                try:
                    deadline.fire()
                except Exception:
                    _log.failure("a deadline's callback failed", event="callback_failed")
        for tick in [tick for tick, slot in self._slots.items() if not slot]:
            del self._slots[tick]
        if self._slots and self._next is None:
            self._next = self._clock.callLater(TICK, self._turn)
