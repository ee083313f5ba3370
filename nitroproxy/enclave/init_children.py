"""The processes that the enclave's init starts, and those that it inherits as process 1: started as a user without
privileges, read, and reaped.

Twisted's own process support waits for single pids and looks users up by name. Here one loop reaps everything, so that
orphans of the application do not stay as zombies, and users are numbers, for an image need not have /etc/passwd.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import IO, Final, Protocol

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.enclave.init_output import LineSplitter

#: Bytes that are read at a time.
_PIECE_BYTES: Final = 65536
#: Pieces that are read at most when the process has ended: a pipe holds 64 KiB, and a grandchild may go on writing.
_LAST_PIECES: Final = 4

#: Given each line of output: the stream's name and the line.
OnLine = Callable[[str, str], object]


@dataclass(frozen=True)
class Account:
    """A user and a group by number."""

    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """What to start.

    :ivar account: as whom; None for init's own user.
    :ivar descriptors: the limit of open files; None leaves it.
    :ivar inherited: descriptors that it has from init, by the same numbers.
    """

    words: Sequence[str]
    environ: Mapping[str, str]
    account: Account | None
    descriptors: int | None = None
    inherited: Sequence[int] = ()


class Child(Protocol):
    """A process that runs."""

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""

    def kill_left(self) -> None:
        """Kill what it started and left in its process group; to be called soon after it has ended."""


#: Starts a command: `OnLine` and a function for its exit status; raises OSError when it cannot be started.
Start = Callable[[Command, OnLine, Callable[[int], object]], Child]


class Children:
    """Starts and reaps processes. In the reactor's thread only.

    :param reactor: reads their output.
    """

    def __init__(self, reactor: IReactorFDSet) -> None:
        self._reactor = reactor
        self._running: dict[int, _Running] = {}

    def start(self, command: Command, on_line: OnLine, on_end: Callable[[int], object]) -> Child:
        """Start *command*.

        :param on_end: called once with the exit status, 128 + n after signal n, when the process has been reaped and
            what it had printed until then has been read.
        :raises OSError: it cannot be started.
        """
        with _descriptors(command.descriptors):
            process = _popen(command)
        running = _Running(process, on_end)
        for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
            assert pipe is not None
            splitter = LineSplitter(partial(on_line, name))
            running.outputs.append(_Output(self._reactor, pipe, splitter))
        self._running[process.pid] = running
        return running

    def reap(self) -> None:
        """Take the status of every process that has ended; to be called after SIGCHLD."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            running = self._running.pop(pid, None)
            if running is not None:
                running.ended(os.waitstatus_to_exitcode(status))


def _popen(command: Command) -> subprocess.Popen[bytes]:
    account = command.account
    return subprocess.Popen(  # noqa: S603  # no shell; the image's own command
        command.words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=dict(command.environ),
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
        start_new_session=True,
        pass_fds=command.inherited,
    )


@contextmanager
def _descriptors(wanted: int | None) -> Iterator[None]:
    """Have what is started in the block inherit this limit of open files. Where init may not raise its own, in a
    container, the limit is as high as it may be."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted is not None:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, before[1])))
        except (OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, before[1]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class _Running:
    """A process that has not been reaped."""

    def __init__(self, process: subprocess.Popen[bytes], on_end: Callable[[int], object]) -> None:
        self.outputs: list[_Output] = []
        self._process = process
        self._on_end = on_end

    def signal(self, number: int) -> None:
        """See `Child.signal`."""
        if self._process.returncode is None:
            os.kill(self._process.pid, number)

    def kill_left(self) -> None:
        """See `Child.kill_left`."""
        # Not permitted: no process of its is left, and the number is another's by now.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def ended(self, code: int) -> None:
        """It has been reaped with *code*, negative for a signal."""
        self._process.returncode = code  # Popen must not wait for a pid that may be another's by then
        for output in self.outputs:
            output.finish()
        self._on_end(code if code >= 0 else 128 - code)


@implementer(IReadDescriptor)
class _Output:
    """The reading end of a child's stdout or stderr."""

    def __init__(self, reactor: IReactorFDSet, file: IO[bytes], splitter: LineSplitter) -> None:
        self._reactor = reactor
        self._file = file
        self._splitter = splitter
        os.set_blocking(self._file.fileno(), False)
        reactor.addReader(self)

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return -1 if self._file.closed else int(self._file.fileno())

    def logPrefix(self) -> str:
        """See `ILoggingContext`."""
        return "enclave-init"

    def doRead(self) -> None:
        """See `IReadDescriptor`."""
        if self._read() is False:
            self._close()

    def connectionLost(self, reason: Failure) -> None:
        """See `IReadDescriptor`."""
        self._close()

    def finish(self) -> None:
        """The process has ended: read what it left. A grandchild that still writes to the pipe is not waited for."""
        for _ in range(_LAST_PIECES):
            if self._file.closed or not self._read():
                break
        self._close()

    def _read(self) -> bool | None:
        """Read once; None when nothing is there, False at the end."""
        try:
            data = os.read(self._file.fileno(), _PIECE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        self._splitter.feed(data)
        return bool(data)

    def _close(self) -> None:
        if not self._file.closed:
            self._reactor.removeReader(self)
            self._file.close()
            self._splitter.end()
