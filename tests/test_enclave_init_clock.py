"""Tests of `nitroproxy.enclave.init_clock`. The clock of this machine is never set: every function has a stand-in."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock as TaskClock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.enclave.init_clock import FIRST_STEP, INTERVAL, STEP, ClockKeeper, SystemClock, make_readable
from nitroproxy.telemetry.logs import EventLog

T0 = 1_780_000_000 * 10**9


class FakeClock:
    """A clock that is off by what the test says."""

    def __init__(self, off: float) -> None:
        self.off: float | OSError = off
        self.done: list[tuple[str, float]] = []

    def offset(self) -> float:
        """See `Clock`."""
        if isinstance(self.off, OSError):
            raise self.off
        return self.off

    def step(self, seconds: float) -> None:
        """See `Clock`."""
        self.done.append(("step", seconds))

    def slew(self, seconds: float) -> None:
        """See `Clock`."""
        self.done.append(("slew", seconds))


class KeeperTests(SynchronousTestCase):
    """When the clock is stepped, and when slewed."""

    def setUp(self) -> None:
        self.reactor = TaskClock()
        self.clock = FakeClock(0.0)
        self.events: list[Mapping[str, Any]] = []
        observer = EventLog("INFO", [self.events.append])
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def keep(self) -> ClockKeeper:
        keeper = ClockKeeper(self.reactor, self.clock)
        keeper.start()
        self.addCleanup(keeper.stop)
        return keeper

    def told(self) -> list[str]:
        """The events, since the last call."""
        names = [event["event"] for event in self.events]
        self.events.clear()
        return names

    def test_at_first(self) -> None:
        """At first the clock is stepped, either way, when it is off by more than a few milliseconds."""
        for off, how in ((10.0, "step"), (-10.0, "step"), (FIRST_STEP, "slew"), (-FIRST_STEP, "slew"), (0.0, "slew")):
            self.clock = FakeClock(off)
            self.keep()
            self.assertEqual(self.clock.done, [(how, off)])
            self.assertEqual(self.told(), ["clock_kept"])

    def test_later(self) -> None:
        """Later it is slewed, and stepped only when it is far off, which is told."""
        self.keep()
        self.told()
        for off, how, told in (
            (0.001, "slew", []),
            (STEP, "slew", []),
            (-STEP, "slew", []),
            (STEP + 0.001, "step", ["clock_stepped"]),
            (-3600.0, "step", ["clock_stepped"]),
            (0.0, "slew", []),
        ):
            self.clock.off, self.clock.done = off, []
            self.reactor.advance(INTERVAL)
            self.assertEqual((self.clock.done, self.told()), ([(how, off)], told))

    def test_no_device(self) -> None:
        """Without the hypervisor's clock nothing is set, which is told once; so is that it is there after all."""
        self.clock.off = FileNotFoundError(errno.ENOENT, "No such file or directory")
        self.keep()
        self.assertEqual(self.told(), ["clock_not_kept"])
        self.reactor.advance(INTERVAL)
        self.assertEqual((self.clock.done, self.told()), ([], []))
        self.clock.off = 0.1
        self.reactor.advance(INTERVAL)
        self.assertEqual((self.clock.done, self.told()), ([("slew", 0.1)], ["clock_kept"]))

    def test_not_allowed(self) -> None:
        """A clock that may not be set, as in a container, is left alone, and init lives on."""

        def refuse(seconds: float) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        self.patch(self.clock, "slew", refuse)
        self.keep()
        self.reactor.advance(INTERVAL)
        self.assertEqual(self.told(), ["clock_not_kept"])

    def test_stop(self) -> None:
        """After `stop` nothing is looked at."""
        keeper = self.keep()
        keeper.stop()
        self.reactor.advance(10 * INTERVAL)
        self.assertEqual(len(self.clock.done), 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class SystemClockTests(SynchronousTestCase):
    """Readings and settings, through stand-ins."""

    def setUp(self) -> None:
        self.set: list[Any] = []
        self.now: list[int] = []
        self.ptp: list[int] = []

    def clock(self) -> SystemClock:
        return SystemClock(
            "/dev/ptp9",
            read_ptp=lambda path: self.ptp.pop(0),
            now=lambda: self.now.pop(0),
            settime=self.set.append,
            adjtime=self.set.append,
        )

    def test_offset(self) -> None:
        """Of several readings that counts which took least, since a reading may be interrupted at any place."""
        self.now = [T0, T0 + 900, T0 + 1000, T0 + 1010, T0 + 2000, T0 + 9000, T0, T0 + 50, T0, T0 + 60]
        self.ptp = [T0 + 7, T0 + 1005 + 2 * 10**9, T0, T0, T0]
        self.assertEqual(self.clock().offset(), 2.0)

    def test_no_time(self) -> None:
        """A clock that says 1970 is not believed."""
        self.now, self.ptp = [T0, T0], [1000]
        self.assertRaises(OSError, self.clock().offset)

    def test_step(self) -> None:
        """The time is set to what it is now and the difference; a slew is handed on as it is."""
        self.now = [T0, T0]
        clock = self.clock()
        clock.step(1.5)
        clock.step(-0.5)
        clock.slew(-0.25)
        self.assertEqual(self.set, [T0 + 1_500_000_000, T0 - 500_000_000, -0.25])

    def test_real_reading(self) -> None:
        """The device's descriptor is made a clock's number: with a file that is no clock the kernel refuses it."""
        path = self.mktemp()
        with open(path, "wb"):
            pass
        clock = SystemClock(path, settime=self.set.append, adjtime=self.set.append)
        self.assertEqual(self.assertRaises(OSError, clock.offset).errno, errno.EINVAL)
        self.assertRaises(FileNotFoundError, SystemClock("/nonexistent/ptp", settime=print, adjtime=print).offset)

    def test_dynamic_clock(self) -> None:
        """FD_TO_CLOCKID of descriptor 5, as the kernel has it."""
        asked: list[int] = []
        self.patch(os, "open", lambda path, flags: 5)
        self.patch(os, "close", lambda descriptor: None)

        def gettime(number: int) -> int:
            asked.append(number)
            return T0

        self.patch(time, "clock_gettime_ns", gettime)
        SystemClock("/dev/ptp9", now=lambda: T0, settime=print, adjtime=print).offset()
        self.assertEqual(asked, [-45] * 5)

    def test_real_setting(self) -> None:
        """What is given to the kernel's two functions, which have stand-ins, too."""
        self.patch(time, "clock_settime_ns", lambda number, now: self.set.append((number, now)))
        given: list[tuple[int, int]] = []
        result = [0, 0, -1]

        class Library:
            """Stands for libc."""

            def adjtime(self, delta: Any, old: object) -> int:
                """See adjtime(3)."""
                given.append((delta._obj.seconds, delta._obj.microseconds))
                return result.pop(0)

        self.patch(ctypes, "CDLL", lambda name, use_errno: Library())
        clock = SystemClock("/dev/ptp9", now=lambda: T0)
        clock.step(1.0)
        self.assertEqual(self.set, [(time.CLOCK_REALTIME, T0 + 10**9)])
        clock.slew(-0.25)
        clock.slew(0.000001)
        self.assertEqual(given, [(-1, 750000), (0, 1)])
        self.assertRaises(OSError, clock.slew, 0.1)

    def test_readable(self) -> None:
        """Every user may read the device, and nobody write to it."""
        path = self.mktemp()
        with open(path, "wb"):
            os.chmod(path, 0o600)
        make_readable(path)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o444)
