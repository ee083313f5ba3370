"""benchmarks.proc: CPU time and memory from an artificial /proc and from that of this process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.figures import Unmeasured
from benchmarks.proc import CPUMeter, Stat, cpu_seconds, parse_stat, rss_bytes, tree

#: utime 120, stime 30, cutime 7, cstime 3 ticks.
_STAT = "{pid} (a) b (c) S {parent} 1 1 0 -1 4194304 100 0 0 0 120 30 7 3 20 0 1 0 132298 3133440 408 0"


class ParseTests(SynchronousTestCase):
    """One line of /proc/PID/stat."""

    def test_fields(self) -> None:
        """User, system and waited-for children's time add up; parentheses in the command do no harm."""
        tick = 1 / os.sysconf("SC_CLK_TCK")
        stat = parse_stat(_STAT.format(pid=42, parent=7))
        self.assertEqual((stat.pid, stat.parent), (42, 7))
        self.assertAlmostEqual(stat.cpu, 160 * tick)
        self.assertAlmostEqual(stat.system, 33 * tick)

    def test_tree(self) -> None:
        """A process, its children and their children; no other process."""
        stats = [Stat(pid, parent, 0, 0) for pid, parent in ((5, 3), (3, 2), (2, 1), (4, 1), (6, 2))]
        self.assertEqual([stat.pid for stat in tree(stats, 2)], [2, 3, 6, 5])


class MadeUpProcTests(SynchronousTestCase):
    """A directory that looks like /proc."""

    def setUp(self) -> None:
        self.proc = Path(self.mktemp())
        for pid, parent, pages in ((2, 1, 100), (3, 2, 10), (9, 1, 1000)):
            directory = self.proc / str(pid)
            directory.mkdir(parents=True)
            (directory / "stat").write_text(_STAT.format(pid=pid, parent=parent))
            (directory / "statm").write_text(f"5000 {pages} 3 1 0 2 0\n")
        (self.proc / "self").mkdir()

    def test_cpu_of_a_tree(self) -> None:
        """The CPU time of a process includes its children."""
        seconds = cpu_seconds({"two": 2, "nine": 9}, self.proc)
        self.assertAlmostEqual(seconds["two"], 2 * seconds["nine"])

    def test_memory_of_a_tree(self) -> None:
        """So does its memory, in bytes."""
        self.assertEqual(rss_bytes(2, self.proc), 110 * os.sysconf("SC_PAGE_SIZE"))

    def test_gone(self) -> None:
        """A process that has ended has no figures; the error says so."""
        with self.assertRaisesRegex(Unmeasured, "x has ended"):
            cpu_seconds({"x": 77}, self.proc)
        with self.assertRaises(Unmeasured):
            rss_bytes(77, self.proc)


class MeterTests(SynchronousTestCase):
    """The real /proc."""

    def test_counts_children(self) -> None:
        """CPU time of a child counts for its parent, as measured from outside."""
        child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            meter = CPUMeter({"us": os.getpid()})
            meter.start()
            until = time.process_time() + 0.2
            while time.process_time() < until:
                pass
            self.assertGreater(meter.stop()["us"], 0.15)
        finally:
            child.kill()
            child.wait()

    def test_too_little(self) -> None:
        """A run shorter than the clock's resolution is refused."""
        meter = CPUMeter({"us": os.getpid()})
        meter.start()
        with self.assertRaisesRegex(Unmeasured, "the clock ticks every"):
            meter.stop()
