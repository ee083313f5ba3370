"""Deadlines for very many connections: one coarse timer wheel instead of a reactor timer for each.

Setting or cancelling one is a set operation. A deadline fires up to one tick late, never early. What waits again and
again, as a connection does with each request, has an `Alarm`, which usually needs no new deadline for that. The clock
must be a monotonic one: see `nitroproxy.daemon.reactor`. Knows nothing of what the deadlines are for.
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
        return self.at(self.seconds() + seconds, callback)

    def at(self, when: float, callback: Callable[[], object]) -> Deadline:
        """Call *callback* at *when* on the clock, at most a tick late; see `after`."""
        tick = math.ceil(when / TICK)
        slot = self._slots.get(tick)
        if slot is None:
            slot = self._slots[tick] = set()
        self._wake()
        return Deadline(slot, callback)

    def _wake(self) -> None:
        """Look at the clock again after a tick."""
        if self._next is None and not self._stopped:
            self._next = self._clock.callLater(TICK, self._turn)

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
        if self._slots:
            self._wake()


class Alarm:
    """One call that is set again and again: only the last one counts.

    A deadline that was set for an earlier call and comes early enough stays; it looks how long is left when it fires.
    So a wait that begins and ends within a few milliseconds costs no more than two attributes.

    :ivar is_set: a call is pending.
    """

    __slots__ = ("_at", "_callback", "_deadline", "_deadlines", "_due")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._deadline: Deadline | None = None
        self._callback: Callable[[], object] | None = None
        self._due = self._at = 0.0

    @property
    def is_set(self) -> bool:
        return self._callback is not None

    def set(self, seconds: float, callback: Callable[[], object]) -> None:
        """Call *callback* once *seconds* have passed, at most two ticks late, instead of what was set before."""
        self._due = self._deadlines.seconds() + seconds
        self._callback = callback
        if self._deadline is None:
            self._arm()
        elif self._due < self._at:
            self._deadline.cancel()
            self._arm()

    def clear(self) -> None:
        """Call nothing."""
        self._callback = None

    def end(self) -> None:
        """Call nothing, and keep no deadline: the connection has ended."""
        self._callback = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _arm(self) -> None:
        self._at = self._due
        self._deadline = self._deadlines.at(self._due, self._fire)

    def _fire(self) -> None:
        self._deadline = None
        callback = self._callback
        if callback is None:
            return
        if self._due > self._deadlines.seconds():
            self._arm()
        else:
            self._callback = None
            callback()
