"""The gauge of the machine's memory."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.memory import machine_memory
from nitroproxy.telemetry.scrape import read_metrics

MEMINFO = "MemTotal:         503324 kB\nMemFree:          310000 kB\nMemAvailable:     341008 kB\nBuffers:  0 kB\n"


class MemoryTests(SynchronousTestCase):
    """What the kernel tells, as samples."""

    def samples(self, read: Callable[[], str]) -> dict[str, float]:
        [family] = machine_memory(read)()
        self.assertEqual(family.name, "nitroproxy_memory_bytes")
        return {sample.labels["state"]: sample.value for sample in family.samples}

    def test_both(self) -> None:
        """Total and available, in bytes."""
        self.assertEqual(self.samples(lambda: MEMINFO), {"total": 503324 * 1024, "available": 341008 * 1024})

    def test_this_machine(self) -> None:
        """The kernel's own file is understood."""
        [family] = machine_memory()()
        total, available = (sample.value for sample in family.samples)
        self.assertTrue(total > available > 0)

    def test_not_told(self) -> None:
        """A sandbox without the file, or a kernel that says less, is no failure."""

        def missing() -> str:
            raise FileNotFoundError(2, "No such file or directory")

        self.assertEqual(self.samples(missing), {})
        self.assertEqual(self.samples(lambda: MEMINFO.replace("MemAvailable", "Mem")), {"total": 503324 * 1024})

    def test_host_takes_it(self) -> None:
        """The host takes this family from the enclave's text."""
        text = (
            "# HELP nitroproxy_memory_bytes x\n# TYPE nitroproxy_memory_bytes gauge\n"
            'nitroproxy_memory_bytes{role="enclave",state="total"} 5.0\n'
            "# HELP nitroproxy_build_info x\n# TYPE nitroproxy_build_info gauge\n"
            'nitroproxy_build_info{role="enclave",version="1"} 1.0\n'
        )
        self.assertIn("nitroproxy_memory_bytes", [family.name for family in read_metrics(text.encode())])
