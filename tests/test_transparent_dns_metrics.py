"""What the name server counts: `nitroproxy.transparent.dns_metrics`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.metrics import LABELS
from nitroproxy.transparent.answers import Answer, Code, Outcome
from nitroproxy.transparent.dns_metrics import DNSMetrics
from nitroproxy.transparent.names import NameTable


class DNSMetricsTests(SynchronousTestCase):
    """Questions and names."""

    def test_counts(self) -> None:
        """By type and outcome, of closed sets; what alerts watch is there before it happens."""
        table = NameTable(self.mktemp())
        self.addCleanup(table.close)
        metrics = DNSMetrics(table)
        for kind in (1, 65, 65, 999):
            metrics.answered(kind, Answer(Code.NOERROR, Outcome.NO_SUCH_TYPE))
        table.number_of("a.example")
        questions, names = metrics.collect()
        counted = {(sample.labels["kind"], sample.labels["outcome"]): sample.value for sample in questions.samples}
        none = "no_such_type"
        expected = {("a", "no_more_numbers"): 0, ("a", "failed"): 0}
        self.assertEqual(counted, expected | {("a", none): 1, ("https", none): 2, ("other", none): 1})
        self.assertLessEqual(set(questions.samples[0].labels), LABELS)
        self.assertEqual([sample.value for sample in names.samples], [1])
