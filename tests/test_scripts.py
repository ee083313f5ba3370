"""scripts/dev.sh where it needs no environment: its words and exit statuses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

DEV = Path(__file__).parent.parent / "scripts" / "dev.sh"


class DevTests(SynchronousTestCase):
    """A copy of the script in a directory of its own, so that no running stack is touched."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        (self.root / "scripts").mkdir(parents=True)
        self.script = shutil.copy(DEV, self.root / "scripts" / "dev.sh")

    def run_script(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", self.script, *arguments], check=False, capture_output=True, text=True)

    def test_help(self) -> None:
        """help names every command, and is what there is without one."""
        done = self.run_script("help")
        self.assertEqual(done.returncode, 0)
        for command in [
            "deps",
            "local",
            "test",
            "clients",
            "lint",
            "bench",
            "load",
            "soak",
            "fuzz",
            "start",
            "stop",
            "restart",
            "status",
            "logs",
            "clean",
            "help",
        ]:
            self.assertIn(f"\n  {command} ", done.stdout)
        self.assertEqual(self.run_script().stdout, done.stdout)

    def test_unknown_command(self) -> None:
        """An unknown command is named, followed by the help, with status 2."""
        done = self.run_script("nonsense")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'nonsense'", done.stderr)
        self.assertIn("usage:", done.stderr)

    def test_nothing_runs(self) -> None:
        """status says that nothing runs, with status 1; stop has nothing to do."""
        done = self.run_script("status")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout.count("not running"), 3)
        self.assertEqual(self.run_script("stop").returncode, 0)

    def test_unknown_service(self) -> None:
        """logs of a service that there is not names those that there are."""
        done = self.run_script("logs", "nonsense")
        self.assertEqual(done.returncode, 2)
        self.assertIn("host-proxy, enclave and upstream", done.stderr)
