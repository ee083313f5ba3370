"""The trials of load and faults, small, against the real daemons as processes (F1 to F10, F13)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.load.__main__ import STAGES


class LoadTests(SynchronousTestCase):
    """Each trial reports its outcome by its exit status, and prints what it measured."""

    def run_trial(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tests.load", "--small", *arguments],
            cwd=Path(__file__).parent.parent,
            check=False,
            capture_output=True,
            text=True,
            timeout=110,
        )
        self.assertEqual(done.returncode, 0, f"{done.stdout}\n{done.stderr}")
        self.assertIn("  good", done.stdout)

    def test_idle(self) -> None:
        """Idle clients cost little and delay no other client (F1)."""
        self.run_trial("idle")

    def test_limit(self) -> None:
        """A client beyond the limit of connections is told so (F2)."""
        self.run_trial("limit")

    def test_bulk(self) -> None:
        """Bodies in parallel both ways are right, in bounded memory, without files (F3)."""
        self.run_trial("bulk")

    def test_drippers(self) -> None:
        """Heads and bodies sent drop by drop are ended and delay no other client (F5)."""
        self.run_trial("drippers")

    def test_recovery(self) -> None:
        """A killed daemon is reported at once; when it is back, requests pass without further action (F6)."""
        self.run_trial("recovery")

    def test_cuts(self) -> None:
        """Whichever hop breaks off, and however the body is framed, the client sees it (F7, F8)."""
        self.run_trial("cuts")

    def test_stalled(self) -> None:
        """A hop that falls silent is given up after the idle timeout."""
        self.run_trial("stalled")

    def test_descriptors(self) -> None:
        """Without free descriptors the daemon neither spins nor stops accepting for good (F9)."""
        self.run_trial("descriptors")

    def test_churn(self) -> None:
        """Connections that come and go leave nothing behind (F10)."""
        self.run_trial("churn")

    def test_drain(self) -> None:
        """SIGTERM loses no request under way; the exit status says whether time ran out (F13)."""
        self.run_trial("drain")

    def test_connects(self) -> None:
        """Who connects while the daemon stops is served or refused, and not reset (F13)."""
        self.run_trial("connects")

    def test_workers_connects(self) -> None:
        """The same with several processes, which share the socket."""
        self.run_trial("workers-connects")

    def test_reload(self) -> None:
        """SIGHUP applies a valid file from the next request on, and nothing of an invalid one."""
        self.run_trial("reload")

    def test_workers(self) -> None:
        """Two processes serve and are one picture; one that hangs is shown, one that is killed is started again."""
        self.run_trial("workers")

    def test_workers_drain(self) -> None:
        """SIGTERM loses no request under way in any of the processes (F13)."""
        self.run_trial("workers-drain")

    def test_workers_ends(self) -> None:
        """Workers end with their supervisor; a place that is taken ends the daemon."""
        self.run_trial("workers-ends")

    def test_workers_killed(self) -> None:
        """A worker killed each second breaks off its own requests only (K6)."""
        self.run_trial("workers-killed")

    def test_workers_starved(self) -> None:
        """A worker that cannot be started for want of descriptors is started when there are some; in the end the daemon
        ends (K6)."""
        self.run_trial("workers-starved")

    def test_workers_interrupted(self) -> None:
        """Ctrl-C while the workers start is no failed start (K6)."""
        self.run_trial("workers-interrupted")

    def test_workers_reload(self) -> None:
        """SIGHUP reaches every process, or none."""
        self.run_trial("workers-reload")

    def test_abandoned(self) -> None:
        """Requests whose clients have left end on every hop; a client that half-closes is answered (K2)."""
        self.run_trial("abandoned")

    def test_blocked_log(self) -> None:
        """If the log is not read, requests pass as before (F12)."""
        self.run_trial("blocked-log")

    def test_logs(self) -> None:
        """The enclave's log arrives at the host, once, also after a restart of the host daemon."""
        self.run_trial("logs")

    def test_soak(self) -> None:
        """Random faults on every hop: no wrong byte, no mixed answer, nothing left (F8)."""
        self.run_trial("--seconds", "6", "soak")

    def test_all_are_run(self) -> None:
        """Every trial has its test here."""
        tests = {name.removeprefix("test_") for name in dir(self) if name.startswith("test_")}
        self.assertEqual({name.replace("-", "_") for name in STAGES} - tests, set())
