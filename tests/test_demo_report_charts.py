"""The charts of the demonstration's HTML report."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.demo.report_charts import sorted_latencies, time_per_case
from nitroproxy.demo.results import Outcome
from tests.test_demo_report import HOSTILE, result


def texts(svg: str) -> list[str]:
    """The texts of a chart, which has to be well-formed."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


class ChartTests(SynchronousTestCase):
    """Their labels and their bars."""

    def test_time_per_case(self) -> None:
        """Each case is a bar with its name and milliseconds; the axis has units and says that it is logarithmic."""
        svg = time_per_case([result("one"), result("two", Outcome.FAILED)])
        self.assertEqual(re.findall('<rect class="([a-z]+)"', svg), ["passed", "failed"])
        for text in ("one", "two", "12.3 ms", "1 ms", "10 ms", "100 ms", "Milliseconds per case, logarithmic scale"):
            self.assertIn(text, texts(svg))

    def test_no_case(self) -> None:
        """Without a case there is an empty chart."""
        self.assertNotIn("<rect", time_per_case([]))

    def test_hostile_names(self) -> None:
        """Markup in a name stays text."""
        self.assertNotIn("<script", time_per_case([result("<script>")]))
        self.assertNotIn("<script", time_per_case([result(HOSTILE)]))

    def test_sorted_latencies(self) -> None:
        """Each request is a bar; the scale is named, and each percentile's line has its value beside it."""
        svg = sorted_latencies([float(number) for number in range(1, 101)])
        self.assertEqual(svg.count("<rect"), 100)
        for text in ("p50 50.0 ms", "p90 90.0 ms", "p99 99.0 ms", "fastest 1.0 ms", "slowest 100.0 ms"):
            self.assertIn(text, texts(svg))
        self.assertTrue(any("linear scale from 0" in text for text in texts(svg)))

    def test_close_percentiles(self) -> None:
        """The labels of percentiles that are equal or close do not overlap."""
        for latencies in ([5.0], [5.0] * 50, [1.0, 1.01, 1.02]):
            svg = sorted_latencies(latencies)
            heights = [float(y) for y in re.findall(r'<text x="\d+" y="([0-9.]+)">p\d', svg)]
            self.assertEqual(len(heights), 3)
            self.assertTrue(all(lower - upper >= 15 for upper, lower in pairwise(heights)), heights)
