"""benchmarks.figures: medians, spreads, ratios of pairs, targets."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.figures import Figure, Row, Target, Unmeasured, figures_of, median_of, ratio_of


class FigureTests(SynchronousTestCase):
    """One quantity over several runs."""

    def test_median(self) -> None:
        """The middle value, or the mean of the two in the middle."""
        self.assertEqual(Figure((5.0, 1.0, 3.0)).median, 3.0)
        self.assertEqual(Figure((4.0, 1.0, 3.0, 2.0)).median, 2.5)

    def test_spread_of_many(self) -> None:
        """The quartiles: one outlier does not widen them."""
        self.assertEqual(Figure((1.0, 2.0, 3.0, 4.0, 500.0)).spread, (2.0, 4.0))

    def test_spread_of_few(self) -> None:
        """The least and the greatest, where quartiles would claim too much."""
        self.assertEqual(Figure((3.0, 1.0, 2.0)).spread, (1.0, 3.0))
        self.assertEqual(Figure((7.0,)).spread, (7.0, 7.0))

    def test_figures_of_runs(self) -> None:
        """The values of each quantity are in the order of the runs; a quantity that one run lacks is left out."""
        figures = figures_of([{"cpu": 1.0, "rate": 10.0}, {"cpu": 3.0}])
        self.assertEqual(figures, {"cpu": Figure((1.0, 3.0))})


class RatioTests(SynchronousTestCase):
    """Pairs."""

    def test_each_pair_by_itself(self) -> None:
        """A machine that slows down between two pairs changes no ratio."""
        pairs = [({"cpu": 10.0}, {"cpu": 20.0}), ({"cpu": 40.0}, {"cpu": 80.0})]
        self.assertEqual(ratio_of(pairs, "cpu"), Figure((2.0, 2.0)))

    def test_no_ratio_to_nothing(self) -> None:
        """A division by zero is reported instead."""
        with self.assertRaisesRegex(Unmeasured, "zero"):
            ratio_of([({"cpu": 0.0}, {"cpu": 1.0})], "cpu")


class TargetTests(SynchronousTestCase):
    """Requirements."""

    def test_less_is_better(self) -> None:
        """At most."""
        self.assertTrue(Target("P1", "", 45, 45.0).met)
        self.assertFalse(Target("P1", "", 45, 45.1).met)

    def test_more_is_better(self) -> None:
        """At least."""
        self.assertTrue(Target("P2", "", 4, 4.0, "more").met)
        self.assertFalse(Target("P2", "", 4, 3.9, "more").met)

    def test_not_measured_is_not_met(self) -> None:
        """Without a measurement it is neither met nor missed."""
        self.assertIsNone(Target("P1", "", 45, None).met)


class MedianOfTests(SynchronousTestCase):
    """One cell of a table."""

    def test_found_or_not(self) -> None:
        """None for an unknown contender or quantity."""
        rows = [Row("a", {"cpu": Figure((1.0, 2.0, 3.0))}), Row("b", unmeasured="not installed")]
        self.assertEqual(median_of(rows, "a", "cpu"), 2.0)
        self.assertIsNone(median_of(rows, "a", "rate"))
        self.assertIsNone(median_of(rows, "b", "cpu"))
