"""What watches a process, assembled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.instruments import Instruments
from nitroproxy.telemetry.metrics import SUPERVISOR


class InstrumentsTests(SynchronousTestCase):
    """A process's log and metrics."""

    def setUp(self) -> None:
        self.reader, self.writer = os.pipe()
        self.addCleanup(os.close, self.reader)
        self.addCleanup(os.close, self.writer)
        self.shipped: list[Mapping[str, Any]] = []

    def instruments(self, worker: int | None, *, access: bool = True) -> Instruments:
        instruments = Instruments(
            Clock(),
            "enclave",
            "1",
            level="INFO",
            form="text",
            access=access,
            output=self.writer,
            worker=worker,
            takers=[self.shipped.append],
        )
        instruments.log.active = True
        return instruments

    def test_takers(self) -> None:
        """Each event goes to the output and to the takers given at construction."""
        instruments = self.instruments(None)
        instruments.log.emit("info", "x", "words", {})
        instruments.flush()
        self.assertIn(b"words", os.read(self.reader, 4096))
        self.assertEqual([fields["event"] for fields in self.shipped], ["x"])

    def test_worker(self) -> None:
        """A numbered worker marks its lines and its samples, the supervisor only its samples, a single process
        neither."""
        for worker, label, mark in ((2, "2", b" [worker 2] "), (SUPERVISOR, "supervisor", None), (None, None, None)):
            instruments = self.instruments(worker)
            instruments.log.emit("info", "x", "words", {})
            instruments.flush()
            line = os.read(self.reader, 4096)
            self.assertEqual(b"[worker" in line, mark is not None)
            self.assertIn(mark or b"words", line)
            samples = [sample for family in instruments.metrics.collect() for sample in family.samples]
            self.assertEqual({sample.labels.get("worker") for sample in samples}, {label})

    def test_observer(self) -> None:
        """A hop's exchanges are counted, and logged unless that is off."""
        for access in (True, False):
            instruments = self.instruments(None, access=access)
            instruments.observer("nitroproxy-enclave").opened()
            instruments.watch_connects("relay")(None)
            samples = {
                sample.name: sample.value for family in instruments.metrics.collect() for sample in family.samples
            }
            self.assertEqual(samples["nitroproxy_connections_total"], 1)
            self.assertEqual(samples["nitroproxy_hop_connects_total"], 1)
