"""The timer wheel."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.proxy.deadlines import TICK, Alarm, Deadlines


class DeadlinesTests(SynchronousTestCase):
    """Deadlines fire at most a tick late, in order, once, or not at all."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.fired: list[str] = []

    def test_never_early(self) -> None:
        """A deadline fires after its time, at most a tick later."""
        self.clock.advance(0.013)
        self.deadlines.after(1.0, lambda: self.fired.append("a"))
        self.clock.pump([0.01] * 99)
        self.assertEqual(self.fired, [])
        self.clock.pump([0.01] * (2 + round(2 * TICK / 0.01)))
        self.assertEqual(self.fired, ["a"])

    def test_cancel(self) -> None:
        """A cancelled deadline does not fire, and cancelling again is harmless; even from another that fires with
        it."""
        second = None

        def first() -> None:
            assert second is not None
            second.cancel()
            other.cancel()
            self.fired.append("one of two")

        other = self.deadlines.after(1.0, first)
        second = self.deadlines.after(1.0, first)
        self.clock.pump([TICK] * 40)
        self.assertEqual(self.fired, ["one of two"])

    def test_failure_stays_alone(self) -> None:
        """A callback that fails is logged and stops no other."""
        self.deadlines.after(0.1, lambda: 1 // 0)
        self.deadlines.after(0.2, lambda: self.fired.append("b"))
        self.clock.pump([TICK] * 10)
        self.assertEqual(self.fired, ["b"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stopped_from_a_callback(self) -> None:
        """A callback may stop all deadlines: no other is called, and nothing fails."""
        called: list[str] = []
        self.deadlines.after(1.0, self.deadlines.stop)
        self.deadlines.after(1.0, self.deadlines.stop)
        self.deadlines.after(1.1, lambda: called.append("later"))
        self.clock.advance(5)
        self.assertEqual((called, self.clock.getDelayedCalls()), ([], []))

    def test_stopped_for_good(self) -> None:
        """What is set after the stop, by connections that end late, wakes nothing up."""
        self.deadlines.stop()
        self.deadlines.after(0.1, lambda: self.fired.append("late")).cancel()
        self.deadlines.after(0.1, lambda: self.fired.append("late"))
        self.clock.pump([TICK] * 10)
        self.assertEqual((self.fired, self.clock.getDelayedCalls()), ([], []))

    def test_rests(self) -> None:
        """Without deadlines the reactor is not woken up."""
        self.deadlines.after(0.1, lambda: None)
        self.clock.pump([TICK] * 10)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AlarmTests(SynchronousTestCase):
    """One call that is set again and again."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.alarm = Alarm(Deadlines(self.clock))
        self.rung: list[str] = []

    def set(self, seconds: float, name: str = "rang") -> None:
        self.alarm.set(seconds, lambda: self.rung.append(name))

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([TICK] * round(seconds / TICK))

    def test_never_early(self) -> None:
        """It rings once, after its time and at most two ticks later, however often it was set before."""
        for _ in range(30):
            self.set(2.0, "earlier")
            self.pass_time(0.35)
        self.set(2.0)
        self.pass_time(1.95)
        self.assertEqual(self.rung, [])
        self.pass_time(3 * TICK)
        self.assertEqual(self.rung, ["rang"])
        self.pass_time(10)
        self.assertEqual(self.rung, ["rang"])

    def test_earlier_than_before(self) -> None:
        """Set for an earlier time it rings then, and not at the time that was set first."""
        self.set(60.0, "first")
        self.set(1.0)
        self.pass_time(1.1)
        self.assertEqual(self.rung, ["rang"])
        self.pass_time(60)
        self.assertEqual(self.rung, ["rang"])

    def test_later_than_before(self) -> None:
        """Set for a later time it does not ring at the time that was set first."""
        self.set(1.0, "first")
        self.set(60.0)
        self.pass_time(59)
        self.assertEqual(self.rung, [])
        self.pass_time(1.1)
        self.assertEqual(self.rung, ["rang"])

    def test_cleared(self) -> None:
        """Cleared it does not ring, and can be set again."""
        self.set(1.0, "first")
        self.assertTrue(self.alarm.is_set)
        self.alarm.clear()
        self.assertFalse(self.alarm.is_set)
        self.pass_time(0.5)
        self.set(1.0)
        self.pass_time(0.9)
        self.assertEqual(self.rung, [])
        self.pass_time(0.2)
        self.assertEqual((self.rung, self.alarm.is_set), (["rang"], False))

    def test_set_when_it_rings(self) -> None:
        """What it calls may set it again."""
        self.alarm.set(1.0, lambda: self.set(1.0))
        self.pass_time(1.1)
        self.assertEqual((self.rung, self.alarm.is_set), ([], True))
        self.pass_time(1.1)
        self.assertEqual(self.rung, ["rang"])

    def test_one_deadline(self) -> None:
        """A thousand waits that end soon leave one deadline, and after the end of the connection there is none."""
        for _ in range(1000):
            self.set(60.0)
            self.alarm.clear()
            self.clock.advance(0.001)
        slots = self.alarm._deadlines._slots
        self.assertEqual(sum(map(len, slots.values())), 1)
        self.set(60.0)
        self.alarm.end()
        self.assertEqual(sum(map(len, slots.values())), 0)
        self.pass_time(61)
        self.assertEqual((self.rung, self.clock.getDelayedCalls()), ([], []))
