"""Keeps the enclave's clock by the hypervisor's, /dev/ptp0 (ptp_kvm), which the host cannot set.

An enclave has no other source of time that may be trusted, and its clock drifts by seconds in days: certificates and
signatures by time would be judged wrongly. Only init may set the clock: the daemon has no privileges, and compares.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from nitroproxy.enclave.ptp import DEVICE, read_ptp

_log: Final = Logger()

#: Seconds between two looks.
INTERVAL: Final = 16.0
#: Seconds up to which the clock is slewed, and beyond which it is stepped: at first, when nothing runs yet that a step
#: could disturb; and later, as systemd-timesyncd does (NTP_MAX_ADJUST).
FIRST_STEP: Final = 0.01
STEP: Final = 0.4
#: A time before this is no time: 2025-01-01.
_EARLIEST: Final = 1735689600 * 10**9
#: Readings of which the one that took least counts.
_READINGS: Final = 5
_NS: Final = 10**9
#: Others may read the hypervisor's clock: the daemon does at its start.
_MODE: Final = 0o444


class Clock(Protocol):
    """The system's clock beside the hypervisor's."""

    def offset(self) -> float:
        """Seconds by which the system's clock is slow.

        :raises OSError: when the hypervisor's cannot be read, or has no usable time.
        """

    def step(self, seconds: float) -> None:
        """Set the clock forward by so much, at once. Raises OSError."""

    def slew(self, seconds: float) -> None:
        """Have the clock gain so much, at 0.5 ms a second; replaces what is left of earlier calls. Raises OSError."""


class _Timeval(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("microseconds", ctypes.c_long)]  # ctypes' own form


def _adjtime(seconds: float) -> None:
    """See adjtime(3)."""
    microseconds = round(seconds * 1e6)
    delta = _Timeval(microseconds // 10**6, microseconds % 10**6)
    if ctypes.CDLL(None, use_errno=True).adjtime(ctypes.byref(delta), None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _settime(now: int) -> None:
    time.clock_settime_ns(time.CLOCK_REALTIME, now)


@dataclass(frozen=True)
class SystemClock:
    """See `Clock`. Tests put stand-ins in the place of all functions, since the real ones set this machine's clock.

    :ivar read_ptp: the hypervisor's time in nanoseconds since the epoch, by the device's path; raises OSError.
    :ivar now: the system's time, likewise.
    :ivar settime: sets the system's time.
    :ivar adjtime: slews it by so many seconds.
    """

    path: str = DEVICE
    read_ptp: Callable[[str], int] = read_ptp
    now: Callable[[], int] = time.time_ns
    settime: Callable[[int], object] = _settime
    adjtime: Callable[[float], object] = _adjtime

    def offset(self) -> float:
        """See `Clock`."""
        _, offset = min(self._reading() for _ in range(_READINGS))
        return offset / _NS

    def _reading(self) -> tuple[int, int]:
        """Nanoseconds that a reading took, and the offset that it shows."""
        before = self.now()
        told = self.read_ptp(self.path)
        after = self.now()
        if told < _EARLIEST:
            raise OSError(0, f"it says {told / _NS:.0f} seconds since 1970, which cannot be")
        return abs(after - before), told - (before + after) // 2

    def step(self, seconds: float) -> None:
        """See `Clock`."""
        self.settime(self.now() + round(seconds * _NS))

    def slew(self, seconds: float) -> None:
        """See `Clock`."""
        self.adjtime(seconds)


class ClockKeeper:
    """Looks at the clock again and again, and corrects it."""

    def __init__(self, reactor: IReactorTime, clock: Clock, name: str = DEVICE) -> None:
        self._clock = clock
        self._name = name
        self._kept: bool | None = None
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def start(self) -> None:
        """Correct the clock now, and from now on. To be called once."""
        self._looking.start(INTERVAL)

    def stop(self) -> None:
        """Look no more."""
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> None:
        try:
            self._correct(self._clock.offset())
        except OSError as error:
            if self._kept is not False:
                self._kept = False
                _log.warn(
                    "the clock is not kept by {device}, and may drift: {reason}",
                    event="clock_not_kept",
                    device=self._name,
                    reason=error.strerror or str(error),
                )

    def _correct(self, offset: float) -> None:
        first = self._kept is None
        stepping = abs(offset) > (FIRST_STEP if first else STEP)
        if stepping:
            self._clock.step(offset)
        else:
            self._clock.slew(offset)
        facts: dict[str, Any] = {"device": self._name, "seconds": round(offset, 6)}
        if not self._kept:
            text = "the clock is kept by {device}; it was slow by {seconds:.6f} s"
            _log.info(text, event="clock_kept", **facts)
        elif stepping:
            _log.warn("the clock was slow by {seconds:.6f} s: set by {device}", event="clock_stepped", **facts)
        self._kept = True


def make_readable(path: str) -> None:
    """Let every user read the hypervisor's clock.

    :raises OSError: when there is none.
    """
    os.chmod(path, _MODE)
