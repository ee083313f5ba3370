"""The metrics of several processes as one."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.metrics import HopMetrics, Metrics
from nitroproxy.telemetry.totals import growing, of_worker, pack, total, unpack
from tests.pair import values


def gauge(name: str, value: float) -> Metric:
    """One sample."""
    family = GaugeMetricFamily(name, "Text.", labels=["role"])
    family.add_metric(["host"], value)
    return family


class TotalTests(SynchronousTestCase):
    """Adding up."""

    def test_travel(self) -> None:
        """All that a daemon counts arrives as it was."""
        metrics = Metrics("host", "1")
        metrics.sources.append(HopMetrics("nitroproxy-host").collect)
        families = metrics.collect()
        for sent, got in zip(families, unpack(pack(families)), strict=True):
            self.assertEqual((sent.name, sent.documentation, sent.type), (got.name, got.documentation, got.type))
            self.assertEqual([sample[:3] for sample in sent.samples], [sample[:3] for sample in got.samples])

    def test_sum(self) -> None:
        """Samples with the same labels are added up, others stand beside each other; buckets stay in their order."""
        one, other = HopMetrics("a"), HopMetrics("a")
        one.opened()
        other.opened()
        families = {
            family.name: family for family in total([*one.collect(), *other.collect(), *HopMetrics("b").collect()])
        }
        opened = families["nitroproxy_connections"].samples
        self.assertEqual([(sample.labels["hop"], sample.value) for sample in opened], [("a", 2), ("b", 0)])
        buckets = [
            sample.labels["le"]
            for sample in families["nitroproxy_request_duration_seconds"].samples
            if sample.name.endswith("_bucket") and sample.labels["hop"] == "a"
        ]
        self.assertEqual(buckets, sorted(buckets, key=float))

    def test_otherwise(self) -> None:
        """The version stands once, and a reload is as good and as old as the worst."""
        found = values(
            total(
                [
                    *(gauge("nitroproxy_build_info", 1) for _ in range(2)),
                    *(gauge("nitroproxy_config_last_reload_successful", value) for value in (1, 0, 1)),
                    *(gauge("nitroproxy_config_last_reload_success_timestamp_seconds", value) for value in (9, 8)),
                ]
            )
        )
        self.assertEqual(list(found.values()), [1, 0, 8])

    def test_process(self) -> None:
        """What is a process's own has its name, and does not outlive it; nor does what is so only now."""
        counter = CounterMetricFamily("process_cpu_seconds", "CPU.", labels=["role"])
        counter.add_metric(["host"], 5)
        families = of_worker("2", [counter, gauge("nitroproxy_connections_open", 3)])
        self.assertEqual(
            values(families), {("process_cpu_seconds_total", "2"): 5, ("nitroproxy_connections_open", ""): 3}
        )
        self.assertEqual(growing(families), [])
