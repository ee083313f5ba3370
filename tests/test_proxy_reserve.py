"""The reserve by itself: its members, which one gives way, and its end (K2)."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.reserve import HEAD_TIMEOUT, SIZE, Reserve


class FakeConnection:
    """A connection that only records its end."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        """End."""
        self.aborted = True


class ReserveTests(SynchronousTestCase):
    """A reserve for three."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.turned_away: list[Any] = []
        self.reserve = Reserve(Deadlines(self.clock), self.turned_away.append, size=3)
        self.one, self.two, self.three, self.four = self.all = [FakeConnection() for _ in range(4)]

    def add(self, *connections: Any) -> list[bool]:
        return [self.reserve.add(connection) for connection in connections]

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)

    def test_size(self) -> None:
        """By default it holds 64."""
        self.assertEqual(SIZE, 64)

    def test_oldest_without_a_head(self) -> None:
        """The oldest without a complete head gives way; one that is being answered does not, and then no more are
        accepted."""
        self.add(self.one, self.two, self.three)
        self.reserve.head_complete(self.one)  # type: ignore[arg-type]
        self.assertEqual(self.add(self.four), [True])
        self.assertEqual(self.turned_away, [self.two])
        for connection in (self.three, self.four):
            self.reserve.head_complete(connection)  # type: ignore[arg-type]
        self.assertEqual(self.add(self.two), [False])
        self.assertEqual(self.turned_away, [self.two])
        self.assertEqual([one in self.reserve for one in self.all], [True, False, True, True])

    def test_times(self) -> None:
        """A second for the head, five for the answer; neither timer outlives a connection that has left."""
        self.add(self.one, self.two, self.three)
        self.reserve.leave(self.two)
        self.reserve.head_complete(self.three)  # type: ignore[arg-type]
        self.pass_time(HEAD_TIMEOUT + 0.1)
        self.assertEqual(self.turned_away, [self.one])
        self.assertFalse(self.three.aborted)
        self.pass_time(4.1)
        self.assertTrue(self.three.aborted)
        self.reserve.leave(self.three)
        self.assertEqual([one in self.reserve for one in self.all], [False] * 4)
        self.assertFalse(self.one.aborted or self.two.aborted)

    def test_age(self) -> None:
        """A connection is asked to give way only after it has had some time."""
        self.add(self.one)
        self.assertFalse(self.reserve.make_way(0.1))
        self.pass_time(0.2)
        self.add(self.two)
        self.assertTrue(self.reserve.make_way(0.1))
        self.assertFalse(self.reserve.make_way(0.1))
        self.assertEqual(self.turned_away, [self.one])

    def test_strangers(self) -> None:
        """Connections outside the reserve are not affected."""
        self.reserve.head_complete(self.one)  # type: ignore[arg-type]
        self.reserve.leave(self.one)
        self.pass_time(6.0)
        self.assertFalse(self.one.aborted)
