"""The timeouts between a client's requests."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.proxy.deadlines import Alarm, Deadlines
from nitroproxy.proxy.head_timeout import HeadTimeout


class HeadWaitTests(SynchronousTestCase):
    """Idle after 10 seconds, late after 3."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[str] = []
        self.wait = HeadTimeout(
            Alarm(Deadlines(self.clock)), lambda: self.told.append("idle"), lambda: self.told.append("late")
        )
        self.wait.begin(10.0)

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.05] * round(seconds / 0.05))

    def test_idle(self) -> None:
        """Without a head the wait ends, once."""
        self.pass_time(9.9)
        self.assertEqual(self.told, [])
        self.pass_time(20)
        self.assertEqual(self.told, ["idle"])

    def test_counts_from_the_last_request(self) -> None:
        """The time counts from the end of the last request, although no new deadline is set."""
        self.pass_time(6)
        self.wait.over()
        self.pass_time(6)
        self.wait.begin(10.0)
        self.pass_time(9.9)
        self.assertEqual(self.told, [])
        self.pass_time(0.3)
        self.assertEqual(self.told, ["idle"])

    def test_not_during_a_request(self) -> None:
        """A long request is not idleness."""
        self.wait.over()
        self.pass_time(60)
        self.assertEqual(self.told, [])

    def test_late(self) -> None:
        """A head that drips is late however it drips; a complete one is not, and the next has its own time."""
        for _ in range(2):
            self.wait.arriving(3.0)
            self.assertTrue(self.wait.begun)
            self.pass_time(2)
            self.wait.arriving(3.0)
            self.wait.over()
            self.wait.begin(10.0)
            self.assertFalse(self.wait.begun)
        self.wait.arriving(3.0)
        self.pass_time(2.9)
        self.assertEqual(self.told, [])
        self.wait.arriving(3.0)
        self.pass_time(0.3)
        self.assertEqual(self.told, ["late"])

    def test_over(self) -> None:
        """Nothing is reported once it is over."""
        self.wait.arriving(3.0)
        self.wait.over()
        self.pass_time(60)
        self.assertEqual(self.told, [])
