"""benchmarks.pairs: the order of the runs, and the rows of contenders that fail."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.figures import Figure, Row, Sample, Unmeasured
from benchmarks.pairs import Run, compare, prepare


class CompareTests(SynchronousTestCase):
    """Contenders that remember when they ran."""

    def setUp(self) -> None:
        self.ran: list[str] = []

    def runner(self, name: str, *values: float) -> Run:
        """Returns *values* one after the other, then fails."""
        left = list(values)

        def run() -> Sample:
            self.ran.append(name)
            if not left:
                raise Unmeasured(f"{name} broke")
            return {"cpu": left.pop(0)}

        return run

    def compare(self, runs: Mapping[str, Run | Unmeasured], rounds: int) -> dict[str, Row]:
        return {row.contender: row for row in compare("a", runs, "cpu", rounds)}

    def test_interleaved(self) -> None:
        """The subject runs before each peer, round by round, and each peer is divided by the run before its own."""
        runs = {"a": self.runner("a", 1, 2, 4, 8), "b": self.runner("b", 3, 8), "c": self.runner("c", 2, 8)}
        rows = self.compare(runs, 2)
        self.assertEqual(self.ran, list("abacabac"))
        self.assertEqual(rows["a"].figures["cpu"], Figure((1, 2, 4, 8)))
        self.assertIsNone(rows["a"].ratio)
        self.assertEqual(rows["b"].ratio, Figure((3, 2)))
        self.assertEqual(rows["c"].ratio, Figure((1, 1)))

    def test_peer_that_did_not_start(self) -> None:
        """A failed contender has its reason in its row; the others are measured."""
        runs: dict[str, Run | Unmeasured] = {"a": self.runner("a", 1), "b": Unmeasured("not installed")}
        runs["c"] = self.runner("c", 5)
        rows = self.compare(runs, 1)
        self.assertEqual(rows["b"], Row("b", unmeasured="not installed"))
        self.assertEqual(rows["c"].ratio, Figure((5,)))

    def test_peer_that_fails_later(self) -> None:
        """Figures of a contender that failed in any round are not shown."""
        rows = self.compare({"a": self.runner("a", 1, 1), "b": self.runner("b", 5)}, 2)
        self.assertEqual(rows["b"], Row("b", unmeasured="b broke"))
        self.assertEqual(rows["a"].figures["cpu"], Figure((1, 1)))

    def test_subject_that_fails(self) -> None:
        """Without a subject there is nothing to compare with: no figures at all, and each row says why."""
        rows = self.compare({"a": self.runner("a"), "b": self.runner("b", 5)}, 2)
        self.assertEqual(rows["a"].unmeasured, "a broke")
        self.assertIn("a broke", rows["b"].unmeasured or "")
        self.assertEqual(self.ran, ["a"])

    def test_subject_alone(self) -> None:
        """Without peers the subject is still measured."""
        rows = self.compare({"a": self.runner("a", 1, 2, 3)}, 3)
        self.assertEqual(rows["a"].figures["cpu"], Figure((1, 2, 3)))

    def test_prepare(self) -> None:
        """A contender is warmed up by one run; if that fails, the reason takes its place."""
        self.assertNotIsInstance(prepare(lambda: self.runner("a", 1)), Unmeasured)
        self.assertEqual(self.ran, ["a"])
        self.assertIsInstance(prepare(lambda: self.runner("b")), Unmeasured)
