"""Real processes: their output, their status, their user, their orphans."""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
from typing import Any, cast

from twisted.internet.interfaces import IReactorFDSet
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from nitroproxy.enclave.init_children import Account, Child, Children, Command

ENVIRON = {"PATH": os.defpath}


class Readers:
    """A reactor that only reads, when it is asked to."""

    def __init__(self) -> None:
        self.readers: set[Any] = set()
        self.addReader = self.readers.add
        self.removeReader = self.readers.discard

    def read_all(self) -> None:
        """Read until every descriptor has ended."""
        while self.readers:
            ready, _, _ = select.select(list(self.readers), [], [], 30)
            assert ready, "nothing came within 30 s"
            for reader in ready:
                reader.doRead()


class ChildrenTests(SynchronousTestCase):
    """`Children`."""

    def setUp(self) -> None:
        self.readers = Readers()
        self.children = Children(cast(IReactorFDSet, self.readers))
        self.lines: list[tuple[str, str]] = []
        self.statuses: list[int] = []

    def _start(self, script: str, account: Account | None = None) -> Child:
        command = Command(["/bin/sh", "-c", script], ENVIRON, account)
        return self.children.start(command, lambda *line: self.lines.append(line), self.statuses.append)

    def _await_end(self) -> None:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        self.children.reap()

    def test_output_and_status(self) -> None:
        """Both streams come as lines, with their names, and the status when the process has ended."""
        self._start("echo out; echo err >&2; exit 7")
        self.readers.read_all()
        self._await_end()
        self.assertEqual(sorted(self.lines), [("stderr", "err"), ("stdout", "out")])
        self.assertEqual(self.statuses, [7])

    def test_signal(self) -> None:
        """A process that a signal ended has 128 and its number; one that has ended gets no signal."""
        child = self._start("read forever <&1; exec sleep 1000")
        child.signal(signal.SIGKILL)
        self._await_end()
        child.signal(signal.SIGKILL)
        self.assertEqual(self.statuses, [137])

    def test_last_output(self) -> None:
        """What a process left in the pipe is read before its end is told, in order."""
        self._start("echo last")
        self._await_end()
        self.assertEqual((self.lines, self.statuses), ([("stdout", "last")], [0]))
        self.assertEqual(self.readers.readers, set())

    def test_grandchild_keeps_the_pipe(self) -> None:
        """A grandchild that still has the pipe is not waited for."""
        self._start("sleep 1000 & echo $!")
        self._await_end()
        self.assertEqual(self.statuses, [0])
        os.kill(int(self.lines[0][1]), signal.SIGKILL)

    def test_kill_left(self) -> None:
        """What a process left in its group is killed; with nothing left that is no error."""
        child = self._start("sleep 1000 & echo $!")
        self._await_end()
        left = os.pidfd_open(int(self.lines[0][1]))
        self.addCleanup(os.close, left)
        child.kill_left()
        self.assertEqual(select.select([left], [], [], 30)[0], [left], "it has ended within 30 s")
        child = self._start("exit 0")
        while len(self.statuses) < 2:
            self._await_end()
        child.kill_left()

    def test_orphans(self) -> None:
        """A process that is not init's own child but was left to it is reaped, and no other is told."""
        if not os.path.exists("/proc/self"):
            raise SkipTest("no /proc here")
        libc = ctypes.CDLL(None)
        libc.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans come to this process, as they come to process 1
        self.addCleanup(libc.prctl, 36, 0)
        self._start("(exec 1>&- 2>&-; sleep 0) & echo $!")
        self.readers.read_all()
        orphan = int(self.lines[0][1])
        while os.path.exists(f"/proc/{orphan}"):
            self._await_end()
        while not self.statuses:
            self._await_end()
        self.assertEqual(self.statuses, [0])

    def test_cannot_be_started(self) -> None:
        """A program that is not there is an OSError, and no process is left."""
        command = Command(["/no/such/program"], ENVIRON, None)
        self.assertRaises(OSError, self.children.start, command, lambda *line: None, self.statuses.append)
        self.children.reap()

    def test_account(self) -> None:
        """A process runs as the user and group that were given, without further groups, and without /etc/passwd."""
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        self._start("id -u; id -g; id -G", Account(65532, 65531))
        self.readers.read_all()
        self._await_end()
        self.assertEqual([line for _, line in self.lines], ["65532", "65531", "65531"])

    def test_descriptors(self) -> None:
        """The limit of open files is set for the process alone, if init may."""
        wanted = len(os.listdir("/proc/self/fd")) + 77  # More than this process has open when it forks.
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        command = Command(["/bin/sh", "-c", "ulimit -n"], ENVIRON, None, wanted)
        self.children.start(command, lambda *line: self.lines.append(line), self.statuses.append)
        self.readers.read_all()
        self._await_end()
        self.assertEqual(self.lines, [("stdout", str(wanted))])
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), before)
