"""The memory that an enclave needs."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image.memory import needed


class MemoryTests(SynchronousTestCase):
    """Each rule counts when its result is the largest."""

    def test_rules(self) -> None:
        """nitro-cli's factor, the unpacking and the running decide in turn."""
        mib = 1 << 20
        self.assertEqual(needed(200 * mib, 216 * mib, 0, 0).least, 800)
        self.assertEqual(needed(24 * mib, 216 * mib, 100, 0).least, 2 * 216 + 64)
        self.assertEqual(needed(24 * mib, 71 * mib, 4096, 32).least, 71 + 64 + 180 + 48 + 32)

    def test_rounded_up(self) -> None:
        """A byte more is a MiB more: nitro-cli counts whole ones."""
        self.assertEqual(needed((1 << 20) + 1, 0, 0, 0).load, 5)
        self.assertIn("to boot 64", str(needed(0, 0, 0, 0)))
