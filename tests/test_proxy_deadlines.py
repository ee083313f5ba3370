"""The timer wheel."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.proxy.deadlines import TICK, Deadlines


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
