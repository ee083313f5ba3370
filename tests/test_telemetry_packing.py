"""Metric families on their way between processes."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.metrics import HopMetrics, Metrics
from nitroproxy.telemetry.packing import pack, unpack


class PackingTests(SynchronousTestCase):
    """There and back."""

    def test_travel(self) -> None:
        """All that a process counts arrives as it was."""
        metrics = Metrics("host", "1", 2)
        metrics.sources.append(HopMetrics("nitroproxy-host").collect)
        families = metrics.collect()
        for sent, got in zip(families, unpack(pack(families)), strict=True):
            self.assertEqual((sent.name, sent.documentation, sent.type), (got.name, got.documentation, got.type))
            self.assertEqual([sample[:3] for sample in sent.samples], [sample[:3] for sample in got.samples])

    def test_nothing_of_ours(self) -> None:
        """Other bytes are an error."""
        for data in (b"", b"\xc1", msgspec.msgpack.encode([["name"]])):
            self.assertRaises(msgspec.DecodeError, unpack, data)
