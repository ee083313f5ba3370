"""How late the reactor fires its timers."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.lag import ReactorLag


class LagTests(SynchronousTestCase):
    """A clock that the test turns."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.lag = ReactorLag(self.clock)
        self.beats = 0

    def beat(self) -> None:
        self.beats += 1

    def buckets(self) -> dict[str, float]:
        [family] = self.lag.collect()
        return {sample.labels["le"]: sample.value for sample in family.samples if sample.name.endswith("_bucket")}

    def test_on_time(self) -> None:
        """A reactor that fires in time has no lag, and beats once a second."""
        self.lag.start(self.beat)
        self.clock.pump([1.0] * 5)
        self.assertEqual((self.beats, self.buckets()["0.001"]), (5, 5))

    def test_late(self) -> None:
        """A timer that fires late is counted by how late it is."""
        self.lag.start(self.beat)
        self.clock.advance(1.07)
        self.clock.advance(1.3)
        found = self.buckets()
        self.assertEqual([found[bound] for bound in ("0.05", "0.1", "0.25", "0.5", "+Inf")], [0, 1, 1, 2, 2])

    def test_stop(self) -> None:
        """Stopped, it neither measures nor beats, and stopping twice does nothing."""
        self.lag.start(self.beat)
        self.lag.stop()
        self.lag.stop()
        self.clock.advance(5)
        self.assertEqual((self.beats, self.clock.getDelayedCalls()), (0, []))
