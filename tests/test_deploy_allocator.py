"""The allocator's file."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.deploy.allocator import FILE, Pool, cpu_list, edited, read_pool
from nitroproxy.deploy.failure import Refused
from nitroproxy.deploy.machine import Machine

#: As it comes with nitro-cli.
SHIPPED = """---
# Enclave configuration file.
#
# How much memory to allocate for enclaves (in MiB).
memory_mib: 512
#
# How many CPUs to reserve for enclaves.
cpu_count: 2
#
# Example of reserving CPUs 2, 3, and 6 through 9:
# cpu_pool: 2,3,6-9
"""


class AllocatorTests(SynchronousTestCase):
    """Read and edited."""

    def setUp(self) -> None:
        self.machine = Machine(Path(self.mktemp()), {})
        self.path = self.machine.path(FILE)
        self.path.parent.mkdir(parents=True)

    def pool(self, text: str) -> Pool:
        self.path.write_text(text)
        return read_pool(self.machine)

    def test_read(self) -> None:
        """Keys with numbers, CPUs one by one, and the newer list of pools."""
        self.assertEqual(self.pool(SHIPPED), Pool(512, 2))
        self.assertEqual(self.pool('---\nmemory_mib: "1024"\ncpu_pool: 2,3,6-9\n'), Pool(1024, 6, named=True))
        several = "---\n- memory_mib: 512\n  cpu_count: 2\n- memory_mib: 256\n  cpu_pool: 4,5\n"
        self.assertEqual(self.pool(several), Pool(768, 4, named=True, parts=2))

    def test_unreadable(self) -> None:
        """A file that is missing, or says nothing, is named."""
        self.assertIn(f"{FILE}: not there", str(self.assertRaises(Refused, read_pool, self.machine)))
        for text in ("", "---\nmemory_mib: 512\n", "---\nmemory_mib: many\ncpu_count: 2\n", "---\nmemory_mib: 1-2\n"):
            self.assertIn(FILE, str(self.assertRaises(Refused, self.pool, text)))

    def test_edited(self) -> None:
        """The values grow and never shrink; everything else stays as it was written."""
        self.assertEqual(edited(SHIPPED, 1024, 2), SHIPPED.replace("512", "1024"))
        self.assertEqual(edited(SHIPPED, 256, 4), SHIPPED.replace("cpu_count: 2", "cpu_count: 4"))
        self.assertEqual(edited("---\nmemory_mib: 64 # mine", 128, 2), "---\nmemory_mib: 128 # mine\n")

    def test_cpu_list(self) -> None:
        """The kernel's notation."""
        self.assertEqual(cpu_list("0-1\n"), [0, 1])
        self.assertEqual(cpu_list("2,3,6-9"), [2, 3, 6, 7, 8, 9])
        self.assertEqual(cpu_list("\n"), [])
        self.assertRaises(ValueError, cpu_list, "x")
