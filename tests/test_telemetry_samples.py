"""The last quarter of an hour of traffic."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.core import Metric
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.samples import COUNT, INTERVAL, Lags, Sample, Samples, quantile

HOP = "nitroproxy-host"


def families(counts: Mapping[str, tuple[float, float, float]], lags: Mapping[str, float] | None = None) -> list[Metric]:
    """What processes count: by worker, requests that succeeded in 0.1 s, that failed in 1 s, and connections."""
    requests = Metric("nitroproxy_requests", "x", "counter")
    durations = Metric("nitroproxy_request_duration_seconds", "x", "histogram")
    connections = Metric("nitroproxy_connections_open", "x", "gauge")
    for worker, (good, bad, open_) in counts.items():
        labels = {"hop": HOP, "worker": worker}
        requests.add_sample("nitroproxy_requests_total", {**labels, "code": "2xx", "method": "GET"}, good)
        requests.add_sample("nitroproxy_requests_total", {**labels, "code": "5xx", "method": "GET"}, bad)
        requests.add_sample("nitroproxy_requests_total", {**labels, "hop": "nitroproxy-relay", "code": "5xx"}, 1e6)
        for bound, count in (("0.1", good), ("1.0", good + bad), ("+Inf", good + bad)):
            durations.add_sample("nitroproxy_request_duration_seconds_bucket", {**labels, "le": bound}, count)
        connections.add_sample("nitroproxy_connections_open", labels, open_)
    late = Metric("nitroproxy_reactor_lag_seconds", "x", "histogram")
    for worker, count in (lags or {}).items():
        for bound, value in (("0.1", 0.0), ("0.5", count), ("+Inf", count)):
            late.add_sample(
                "nitroproxy_reactor_lag_seconds_bucket", {"role": "host", "worker": worker, "le": bound}, value
            )
    return [requests, durations, connections, late]


class SamplesTests(SynchronousTestCase):
    """Samples every five seconds."""

    def setUp(self) -> None:
        self.samples = Samples(HOP)
        self.now = 100.0

    def take(self, counts: Mapping[str, tuple[float, float, float]] | None, later: float = INTERVAL) -> Sample | None:
        self.now += later
        self.samples.take(None if counts is None else families(counts), self.now)
        return self.samples.tell()[-1]

    def test_rates(self) -> None:
        """What was counted since the sample before, by all processes; the first sample has none before it."""
        self.assertIsNone(self.take({"1": (1000, 50, 7), "2": (0, 0, 1)}))
        sample = self.take({"1": (1030, 50, 5), "2": (10, 10, 6)})
        self.assertEqual(sample, Sample(rate=10, failed=0.2, median=0.0625, slow=0.955, connections=11))

    def test_quiet(self) -> None:
        """Without requests there is a rate, and no part that failed and no time."""
        self.take({"1": (5, 0, 1)})
        self.assertEqual(self.take({"1": (5, 0, 0)}), Sample(0, None, None, None, 0))

    def test_started_again(self) -> None:
        """A process that was started again counts from 0, and one that is new has nothing before."""
        self.take({"1": (1000, 0, 1), "2": (500, 0, 0)})
        sample = self.take({"1": (20, 0, 1), "2": (500, 0, 0), "3": (5, 0, 0)})
        assert sample is not None
        self.assertEqual((sample.rate, sample.median), (5, 0.05))

    def test_silent(self) -> None:
        """A daemon that says nothing has no sample, nor has the first time that it speaks again."""
        self.take({"1": (5, 0, 1)})
        self.assertEqual([self.take(None), self.take({"1": (9, 0, 1)})], [None, None])
        self.assertIsNotNone(self.take({"1": (9, 0, 1)}))

    def test_one_silent(self) -> None:
        """What a process that did not answer once has counted in its life has not happened since then."""
        self.take({"1": (1000, 0, 1), "2": (500, 0, 1)})
        self.take({"1": (1000, 0, 1)})
        sample = self.take({"1": (1000, 0, 1), "2": (505, 0, 1)})
        assert sample is not None
        self.assertEqual(sample.rate, 1)

    def test_stood_still(self) -> None:
        """Samples that nobody took are missing, so that the curve's time is right; the rate is over all of it."""
        self.take({"1": (0, 0, 1)})
        sample = self.take({"1": (60, 0, 1)}, later=6 * INTERVAL)
        assert sample is not None
        self.assertEqual(sample.rate, 2)
        self.assertEqual(list(self.samples.tell()[:-1]), [None] * 6)
        self.take({"1": (60, 0, 1)}, later=1e9)
        self.assertEqual(len(self.samples.tell()), COUNT)

    def test_bounded(self) -> None:
        """A quarter of an hour is kept."""
        for count in range(COUNT + 50):
            self.take({"1": (count, 0, 0)})
        self.assertEqual((len(self.samples.tell()), COUNT * INTERVAL), (COUNT, 900))


class LagsTests(SynchronousTestCase):
    """How late timers fire."""

    def test_worst(self) -> None:
        """The process that is latest counts, since the sample before."""
        lags = Lags("host")
        self.assertIsNone(lags.tell())
        lags.take(families({}, {"1": 5, "2": 0}))
        self.assertAlmostEqual(lags.tell() or 0, 0.496)
        lags.take(families({}, {"1": 5, "2": 0}))
        self.assertIsNone(lags.tell(), "no timer fired")
        lags.take([])
        self.assertIsNone(lags.tell())


class QuantileTests(SynchronousTestCase):
    """Estimates as Prometheus's."""

    def test_values(self) -> None:
        """Linear in a bucket; above the last bound it is that bound."""
        inf = float("inf")
        for buckets, part, expected in (
            ({}, 0.5, None),
            ({1.0: 0.0, inf: 0.0}, 0.5, None),
            ({1.0: 10.0, 2.0: 20.0, inf: 20.0}, 0.5, 1.0),
            ({1.0: 10.0, 2.0: 20.0, inf: 20.0}, 0.75, 1.5),
            ({1.0: 0.0, 2.0: 0.0, inf: 20.0}, 0.5, 2.0),
        ):
            self.assertEqual(quantile(buckets, part), expected)
