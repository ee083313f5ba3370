"""Programs and files of the instance."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.deploy.machine import CommandFailed, Machine


class MachineTests(SynchronousTestCase):
    """Below a root, with this machine's programs."""

    def setUp(self) -> None:
        self.machine = Machine(Path(self.mktemp()), {"PATH": os.environ["PATH"], "WORD": "here"})

    def test_files(self) -> None:
        """Absolute names are below the root; what cannot be read is None."""
        self.assertEqual(self.machine.path("/etc/x"), self.machine.root / "etc/x")
        self.assertIsNone(self.machine.read("/etc/x"))
        self.machine.path("/etc").mkdir(parents=True)
        self.machine.path("/etc/x").write_bytes(b"\xffy")
        self.assertEqual(self.machine.read("/etc/x"), "\ufffdy")
        self.assertIsNone(self.machine.read("/etc"))

    def test_programs(self) -> None:
        """A program has the machine's environment; one that fails is named with its last words."""
        self.assertEqual(self.machine.run("sh", "-c", "echo $WORD"), "here\n")
        self.assertTrue(self.machine.has("sh"))
        self.assertFalse(self.machine.has("no-such-program"))
        error = str(self.assertRaises(CommandFailed, self.machine.run, "sh", "-c", "yes | head -c 5000 >&2; exit 3"))
        self.assertIn("failed with status 3: ", error)
        self.assertLess(len(error), 700)
        self.assertIn("no no-such-program", str(self.assertRaises(CommandFailed, self.machine.run, "no-such-program")))
        self.assertFalse(self.machine.succeeds("false"))
        self.assertTrue(self.machine.succeeds("true"))
