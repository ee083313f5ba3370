"""Starts the programs of a run in the background, waits until they answer, and ends all of them."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from benchmarks.figures import Unmeasured

#: Debian's directories of daemons, which are not on every user's PATH.
DAEMONS_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
#: The repository: modules of this package are started from there.
ROOT: Final = Path(__file__).resolve().parent.parent
_DESCRIPTORS: Final = 65536
_START_TIMEOUT: Final = 20.0

Address = str | tuple[str, int]


def raise_descriptor_limit() -> int:
    """Raise the descriptor limit of this process and its children to the maximum; returns the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, _DESCRIPTORS), max(hard, _DESCRIPTORS)))
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def free_ports(count: int) -> list[int]:
    """Different TCP ports of loopback without a listener."""
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def free_port() -> int:
    """One free port."""
    return free_ports(1)[0]


def open_socket(address: Address, timeout: float | None = 30.0) -> socket.socket:
    """Connect to a path (UNIX) or a host and port (TCP)."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(address)
        if family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection


def listens(address: Address) -> bool:
    """Whether a server accepts connections there."""
    try:
        open_socket(address, 1.0).close()
    except OSError:
        return False
    return True


class Process:
    """A program in the background, in a process group of its own."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str], directory: Path = ROOT
    ) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as output:
            try:
                self._popen = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "PATH": DAEMONS_PATH, **environment},
                    start_new_session=True,
                    cwd=directory,
                )
            except FileNotFoundError as error:
                raise Unmeasured(f"{command[0]} is not installed") from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def wait_until(self, ready: Callable[[], bool], timeout: float = _START_TIMEOUT) -> None:
        """Wait for *ready*.

        :raises Unmeasured: with the log's last line when the process ends or *timeout* seconds pass.
        """
        give_up = time.monotonic() + timeout
        while not ready():
            if self._popen.poll() is not None:
                raise Unmeasured(f"{self.name} ended with {self._popen.returncode}: {self._last_line()}")
            if time.monotonic() > give_up:
                raise Unmeasured(f"{self.name} does not answer after {timeout:g} s: {self._last_line()}")
            time.sleep(0.002)

    def stop(self) -> None:
        """End it with all processes that it started."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(3)
        self._signal(signal.SIGKILL)
        self._popen.wait()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._popen.pid, number)
        except ProcessLookupError:
            return

    def _last_line(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "its log is empty"


class Crew:
    """The processes of one case; a context manager that ends them all.

    :ivar directory: for their files; its creator removes it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._processes: list[Process] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._processes:
            self._processes.pop().stop()

    def launch(
        self,
        name: str,
        command: Sequence[str],
        address: Address | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path = ROOT,
    ) -> Process:
        """Start *command* in *directory* and wait until it listens on *address*.

        :raises Unmeasured: when the program is not installed or does not start.
        """
        process = Process(name, command, self.directory / f"{name}.log", environment or {}, directory)
        self._processes.append(process)
        if address is not None:
            process.wait_until(lambda: listens(address))
        return process

    def write(self, name: str, text: str) -> Path:
        """Write a file in the directory; returns its path."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path
