"""benchmarks.documents: the figures of one run in the documents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.documents import DOCUMENTS, PUBLISHED, publish, refresh
from benchmarks.figures import Figure, Row
from benchmarks.results import from_json
from tests.test_benchmarks_results import CASE, RESULTS

ROOT = Path(__file__).parent.parent


def block(name: str, content: str = "old figures\n") -> str:
    return f"before\n<!-- bench {name} -->\n{content}<!-- /bench -->\nafter\n"


class RefreshTests(SynchronousTestCase):
    """A text with blocks."""

    def test_replaces(self) -> None:
        """What is between the marks is replaced, what is around them stays, and doing it again changes nothing."""
        written = refresh(block("figures"), RESULTS)
        self.assertTrue(written.startswith("before\n<!-- bench figures -->\n"))
        self.assertTrue(written.endswith("<!-- /bench -->\nafter\n"))
        self.assertNotIn("old figures", written)
        self.assertIn("| Gateway hop | nitroproxy | 42 [41–44] µs |  |", written)
        self.assertIn("|  | nginx | 9.0 [8.0–10] µs | 0.20 [0.20–0.20] |", written)
        self.assertEqual(refresh(written, RESULTS), written)

    def test_readme(self) -> None:
        """The READMEs name the peers that a reader knows, those that were measured, in both languages."""
        rows = (*CASE.rows, Row("an obscure one", {"cpu": Figure((7.0,))}))
        results = replace(RESULTS, cases=(replace(CASE, rows=rows),))
        for name, text in (("readme", "a request through the gateway hop"), ("readme-zh", "经网关节点的一个请求")):
            lines = refresh(block(name), results).splitlines()
            self.assertIn(f"| {text} | 42 µs | nginx 9.0 |", lines)

    def test_required(self) -> None:
        """What was required stands beside what was measured."""
        written = refresh(block("required"), RESULTS)
        self.assertIn("- P1: at most 45 µs CPU a request: 41.5, met\n", written)
        self.assertIn("- P9: at least 2 of something: not measured\n", written)

    def test_unknown(self) -> None:
        """A block that nobody writes is an error."""
        self.assertRaises(KeyError, refresh, block("nonsense"), RESULTS)


class PublishedTests(SynchronousTestCase):
    """The documents of this tree."""

    def test_one_run(self) -> None:
        """They have the figures of the committed run, the same everywhere: `python -m benchmarks.documents`."""
        results = from_json((ROOT / PUBLISHED / "results.json").read_text())
        for document in DOCUMENTS:
            text = (ROOT / document).read_text()
            self.assertIn("<!-- bench ", text)
            self.assertEqual(refresh(text, results), text, document)

    def test_writes(self) -> None:
        """All of them are written."""
        root = Path(self.mktemp())
        for document in DOCUMENTS:
            (root / document).parent.mkdir(parents=True, exist_ok=True)
            (root / document).write_text(block("required"))
        publish(RESULTS, root)
        for document in DOCUMENTS:
            self.assertIn("P1: at most 45", (root / document).read_text())
