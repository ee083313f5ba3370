"""scripts/dev.sh and scripts/vm.sh where they need no environment: their words and exit statuses."""

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
            "vm",
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


class DigestTests(SynchronousTestCase):
    """`vm.sh digest`, by which the tests in the VM are run again or not, in a repository of its own."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.write("nitroproxy/daemon.py", "one")
        self.write("README.md", "one")
        (self.root / "scripts").mkdir()
        shutil.copy(DEV.with_name("vm.sh"), self.root / "scripts" / "vm.sh")
        subprocess.run(["git", "init", "--quiet", str(self.root)], check=True)

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def digest(self) -> str:
        command = ["bash", str(self.root / "scripts" / "vm.sh"), "digest"]
        digest = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        self.assertRegex(digest, r"\A[0-9a-f]{64}\n\Z")
        return digest

    def test_what_counts(self) -> None:
        """A covered file that changes, comes or goes changes the digest; other files and the record do not."""
        digests = [self.digest()]
        self.write("README.md", "two")
        self.write("tests/vm/passed", digests[0])
        self.assertEqual(self.digest(), digests[0])
        self.write("nitroproxy/daemon.py", "two")
        digests.append(self.digest())
        self.write("systemd/new.service", "")
        digests.append(self.digest())
        subprocess.run(["git", "-C", str(self.root), "add", "."], check=True)
        self.assertEqual(self.digest(), digests[-1])
        (self.root / "nitroproxy" / "daemon.py").unlink()
        digests.append(self.digest())
        self.assertEqual(len(set(digests)), 4)

    def test_same_everywhere(self) -> None:
        """It depends on names and contents only: a clone of one commit has the same."""
        git = ["git", "-C", str(self.root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
        for words in (["add", "."], ["commit", "--quiet", "-m", "one"]):
            subprocess.run([*git, *words], check=True)
        before, clone = self.digest(), Path(self.mktemp())
        url = f"file://{self.root.absolute()}"
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", url, str(clone)], check=True)
        self.root = clone
        self.assertEqual(self.digest(), before)
