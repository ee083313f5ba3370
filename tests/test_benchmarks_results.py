"""benchmarks.results, table and chart: a run as JSON and back, as text and as a picture; and the committed results."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.chart import PANELS, axis, chart, place
from benchmarks.figures import CaseResult, Figure, Row, Target
from benchmarks.results import FORMAT, Results, document, from_json, to_json
from benchmarks.table import aligned, case_table, markdown, number, shown

_COMMITTED = Path(__file__).parent.parent / "benchmarks" / "results"

CASE = CaseResult(
    "gateway",
    "Gateway hop",
    "cpu",
    (
        Row("nitroproxy", {"cpu": Figure((40.0, 50.0, 42.0, 41.0)), "p99": Figure((1.5, 1.25, 1.0, 2.0))}),
        Row("nginx", {"cpu": Figure((8.0, 10.0))}, Figure((0.2, 0.2))),
        Row("squid & co", unmeasured="squid is not installed"),
    ),
    ("A note.",),
    (Target("P1", "µs CPU a request", 45, 41.5), Target("P9", "of something", 2, None, "more")),
)
RESULTS = Results(
    "2026-01-02T03:04:05+00:00",
    "python -m benchmarks",
    "abc1234",
    {"cpu": "Some <CPU>", "cores": "2"},
    {"nginx": "1.22"},
    12.5,
    0.01,
    0.25,
    (CASE,),
)


class JsonTests(SynchronousTestCase):
    """The document."""

    def test_there_and_back(self) -> None:
        """Reading the document gives the run that was written."""
        self.assertEqual(from_json(to_json(RESULTS)), RESULTS)

    def test_readable_without_us(self) -> None:
        """Median, spread and unit stand beside the values; a contender without figures has its reason."""
        rows = json.loads(to_json(RESULTS))["cases"][0]["rows"]
        self.assertEqual(
            rows[0]["figures"]["cpu"],
            {"unit": "µs", "median": 41.5, "low": 40.75, "high": 44.0, "values": [40, 50, 42, 41]},
        )
        self.assertEqual(rows[2], {"contender": "squid & co", "unmeasured": "squid is not installed"})

    def test_other_format(self) -> None:
        """Results of another format are refused."""
        with self.assertRaisesRegex(ValueError, "format"):
            from_json(json.dumps({"format": FORMAT + 1}))

    def test_committed(self) -> None:
        """The committed results can be read, have what the picture shows, and are of one run."""
        results = from_json((_COMMITTED / "results.json").read_text())
        self.assertTrue(set(PANELS) <= {case.name for case in results.cases})
        for name in ("results.svg", "results.md"):
            self.assertIn(f"commit {results.commit}", (_COMMITTED / name).read_text())


class DocumentTests(SynchronousTestCase):
    """Markdown."""

    def test_everything_is_there(self) -> None:
        """The document has the machine, the share of other programs, each case with its table, and reasons for what is
        missing."""
        text = document(RESULTS)
        self.assertIn("Some <CPU>", text)
        self.assertIn("25% went to other programs", text)
        self.assertIn("## Gateway hop (`gateway`)", text)
        self.assertIn("- squid & co: not measured: squid is not installed", text)
        self.assertIn("- P1: at most 45", text)


class TableTests(SynchronousTestCase):
    """Text."""

    def test_numbers(self) -> None:
        """As many digits as are significant."""
        self.assertEqual(number(1234.5, 0), "1,234")
        self.assertEqual(number(41.5, 1), "41.5")
        self.assertEqual(number(0.028, 1), "0.028")
        self.assertEqual(number(0.0, 0), "0")

    def test_shown(self) -> None:
        """The median with its spread; a single run has none."""
        self.assertEqual(shown(Figure((40.0, 50.0, 42.0, 41.0)), 0), "42 [41–44]")
        self.assertEqual(shown(Figure((7.0,)), 1), "7.0")

    def test_columns(self) -> None:
        """Columns are aligned, and lines have no trailing spaces."""
        self.assertEqual(aligned([["", "b"], ["aaa", "1"], ["a", ""]]), ["     b", "aaa  1", "a"])

    def test_case(self) -> None:
        """Figures, ratios, reasons, targets and notes are all there; nothing unmeasured has a figure."""
        text = case_table(CASE)
        self.assertIn("nitroproxy    42 [41–44]  1.38 [1.19–1.62]                    1\n", text)
        self.assertIn("0.20 [0.20–0.20]\n", text)
        self.assertIn("squid & co: not measured: squid is not installed", text)
        self.assertIn("P1: at most 45 µs CPU a request: 41.5, met", text)
        self.assertIn("P9: at least 2 of something: not measured", text)
        self.assertIn("A note.", text)

    def test_markdown(self) -> None:
        """Every line has as many cells as the head."""
        lines = markdown(CASE).splitlines()
        self.assertEqual({line.count("|") for line in lines}, {5})
        self.assertEqual(lines[1], "| --- | ---: | ---: | ---: |")


class ChartTests(SynchronousTestCase):
    """The picture."""

    def test_well_formed(self) -> None:
        """It is XML whatever the names are, and has a dot for each contender with figures."""
        root = ElementTree.fromstring(chart(RESULTS))
        dots = root.findall(".//{http://www.w3.org/2000/svg}circle")
        self.assertEqual([dot.get("class") for dot in dots], ["peer", "ours"])

    def test_order(self) -> None:
        """The cheapest is at the top and at the left."""
        root = ElementTree.fromstring(chart(RESULTS))
        first, second = root.findall(".//{http://www.w3.org/2000/svg}circle")
        self.assertLess(float(first.get("cx", "")), float(second.get("cx", "")))
        self.assertLess(float(first.get("cy", "")), float(second.get("cy", "")))

    def test_axis(self) -> None:
        """The axis has whole powers of ten that include every figure."""
        self.assertEqual(axis([Figure((8.0, 9.0)), Figure((120.0,))]), (0, 3))
        self.assertEqual(axis([Figure((10.0,))]), (1, 2))
        self.assertAlmostEqual(place(10.0, 0, 2), (place(1.0, 0, 2) + place(100.0, 0, 2)) / 2)

    def test_nothing_to_draw(self) -> None:
        """A run without any of the drawn cases gives an empty picture, not an error."""
        root = ElementTree.fromstring(chart(Results("", "", "", {}, {}, 0, 0, 0)))
        self.assertEqual(root.findall(".//{http://www.w3.org/2000/svg}circle"), [])
        self.assertIn("Less is better", "".join(root.itertext()))
