"""Shares of connections, counted in memory that processes share."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.workers.balance import Share, SharedCounts


class ShareTests(SynchronousTestCase):
    """Three workers at two places."""

    def setUp(self) -> None:
        self.shared = SharedCounts(3, 2)
        self.addCleanup(os.close, self.shared.descriptor)
        self.counts = {(place, worker): 0 for place in (0, 1) for worker in (0, 1, 2)}
        self.shares = {key: self.share(*key) for key in self.counts}

    def share(self, place: int, worker: int) -> Share:
        return Share(self.shared.descriptor, 3, place, worker, lambda: self.counts[place, worker])

    def taken(self, workers: tuple[int, ...] = (0, 1, 2)) -> list[bool]:
        """Whether each has its share of the first place, once all have said how many they have."""
        for worker in workers:
            self.shares[0, worker].is_taken()
        return [self.shares[0, worker].is_taken() for worker in workers]

    def test_even(self) -> None:
        """A worker that has as many as the others, or a little more, goes on."""
        self.assertEqual(self.taken(), [False, False, False])
        self.counts.update({(0, 0): 11, (0, 1): 10, (0, 2): 12})
        self.assertEqual(self.taken(), [False, False, False])

    def test_uneven(self) -> None:
        """One that has over an eighth more than another leaves the next to it; the other place is another matter."""
        self.counts.update({(0, 0): 100, (0, 1): 80, (0, 2): 92, (1, 1): 1000})
        self.assertEqual(self.taken(), [True, False, True])
        self.counts[0, 0] = 91
        self.counts[0, 2] = 80
        self.assertEqual(self.taken(), [False, False, False])

    def test_absent(self) -> None:
        """Nothing is left to a worker that has not begun to accept, has died or hangs; back again, it counts (K6)."""
        self.counts.update({(0, 0): 100, (0, 1): 100})
        self.assertEqual(self.taken((0, 1)), [False, False], "the third has not begun")
        self.assertEqual(self.taken(), [True, True, False])
        self.shared.forget(2)
        self.assertEqual(self.taken((0, 1)), [False, False], "the third has died")
        self.assertEqual(self.taken(), [True, True, False])

    def test_forget_one(self) -> None:
        """Forgetting a worker concerns that worker, at every place."""
        self.counts.update({(place, worker): 9 for place, worker in self.counts} | {(0, 1): 0, (1, 1): 0})
        for share in self.shares.values():
            share.is_taken()
        self.shared.forget(2)
        self.assertEqual([self.shares[place, 0].is_taken() for place in (0, 1)], [True, True])
        self.shared.forget(1)
        self.assertEqual([self.shares[place, 0].is_taken() for place in (0, 1)], [False, False])
