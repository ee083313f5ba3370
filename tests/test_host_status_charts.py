"""The curves of the status page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.host.status_charts import chart, highest, values_of
from nitroproxy.telemetry.samples import COUNT, Sample


class ChartTests(SynchronousTestCase):
    """Lines of points."""

    def lines(self, *values: float | None, most: float = 10.0) -> list[str]:
        return re.findall(r'class="a" points="([^"]*)"', chart(values, [], most, "x"))

    def test_right(self) -> None:
        """The newest value is at the right end, the highest near the top, zero at the bottom."""
        last = COUNT - 1
        self.assertEqual(self.lines(0.0, 10.0), [f"{last - 1},48 {last},3.84"])

    def test_gaps(self) -> None:
        """What is missing is a gap; a value alone is seen all the same."""
        last = COUNT - 1
        self.assertEqual(
            self.lines(5.0, None, 0.0, 0.0), [f"{last - 3},25.92 {last - 2.2:g},25.92", f"{last - 1},48 {last},48"]
        )
        self.assertEqual(self.lines(None, None), [])
        self.assertEqual(self.lines(), [])

    def test_flat(self) -> None:
        """Nothing but zeros is a line at the bottom."""
        self.assertEqual(self.lines(0.0, 0.0, most=0.0), [f"{COUNT - 2},48 {COUNT - 1},48"])

    def test_both(self) -> None:
        """Two lines of different kinds, in one well-formed picture with a name."""
        picture = ElementTree.fromstring(chart([1.0, 2.0], [2.0, 1.0], 2.0, "requests &lt; 5"))
        self.assertEqual([line.get("class") for line in picture], ["a", "b"])
        self.assertEqual(picture.get("aria-label"), "requests < 5")

    def test_values(self) -> None:
        """One value of each sample; the highest of several lines."""
        samples = [None, Sample(1.0, None, None, None, 5.0)]
        self.assertEqual(values_of(samples, lambda one: one.connections), [None, 5.0])
        self.assertEqual((highest([None, 5.0], [7.0]), highest([None], [])), (7.0, 0.0))
