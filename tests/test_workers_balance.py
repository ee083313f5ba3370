"""Shares of connections, told in memory that processes share."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.workers.balance import Share, shared_memory


class ShareTests(SynchronousTestCase):
    """Three processes at two places."""

    def setUp(self) -> None:
        self.memory = shared_memory(3, 2)
        self.addCleanup(os.close, self.memory)
        self.counts = {(place, process): 0 for place in (0, 1) for process in (0, 1, 2)}
        self.shares = {
            (place, process): Share(self.memory, 3, place, process, lambda key=(place, process): self.counts[key])  # type: ignore[misc]
            for place, process in self.counts
        }

    def taken(self) -> list[bool]:
        """Whether each has its share of the first place, once all have told how many they have."""
        for process in range(3):
            self.shares[0, process].is_taken()
        return [self.shares[0, process].is_taken() for process in range(3)]

    def test_even(self) -> None:
        """Who has as many as the others, or a little more, goes on."""
        self.assertEqual(self.taken(), [False, False, False])
        self.counts.update({(0, 0): 11, (0, 1): 10, (0, 2): 12})
        self.assertEqual(self.taken(), [False, False, False])

    def test_uneven(self) -> None:
        """Who has more than an eighth more than another leaves the next to it; the other place is another matter."""
        self.counts.update({(0, 0): 100, (0, 1): 80, (0, 2): 92, (1, 1): 1000})
        self.assertEqual(self.taken(), [True, False, True])
        self.counts[0, 0] = 91
        self.counts[0, 2] = 80
        self.assertEqual(self.taken(), [False, False, False])
