"""Tests of `nitroproxy.telemetry.attestation`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.attestation import OUTCOMES, USES, AttestationMetrics
from nitroproxy.telemetry.metrics import LABELS


class AttestationMetricsTests(SynchronousTestCase):
    """What is counted."""

    def test_collect(self) -> None:
        """Every use and outcome is there from the start; ages and times are seconds."""
        metrics = AttestationMetrics(lambda: 12.5)
        metrics.document("kms", "busy")
        metrics.called(0.002)
        documents, seconds, age = metrics.collect()
        counts = {(sample.labels["use"], sample.labels["outcome"]): sample.value for sample in documents.samples}
        self.assertEqual(set(counts), {(use, outcome) for use in USES for outcome in OUTCOMES})
        self.assertEqual(sum(counts.values()), counts["kms", "busy"])
        self.assertEqual([sample.value for sample in age.samples], [12.5])
        self.assertIn(("nitroproxy_nsm_seconds_sum", 0.002), [(one.name, one.value) for one in seconds.samples])
        names = {name for family in (documents, seconds, age) for one in family.samples for name in one.labels}
        self.assertLessEqual(names - {"le"}, LABELS)
