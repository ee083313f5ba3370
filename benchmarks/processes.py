"""Starts the programs of a run in the background, waits until they answer, and ends every one of them."""

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

#: Where Debian puts daemons that are not on every user's PATH.
_PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
#: The repository, from which the parts of this package are started as modules.
ROOT: Final = Path(__file__).resolve().parent.parent
_DESCRIPTORS: Final = 65536
_START_TIMEOUT: Final = 20.0

Address = str | tuple[str, int]


def raise_descriptor_limit() -> int:
    """Allow this process, and those it starts, as many descriptors as it can; the number that it got."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, _DESCRIPTORS), max(hard, _DESCRIPTORS)))
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def free_port() -> int:
    """A TCP port of loopback on which nobody listens now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def open_socket(address: Address, timeout: float | None = 30.0) -> socket.socket:
    """A connection to a path (UNIX) or a host and port (TCP)."""
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
    """Whether somebody accepts connections there."""
    try:
        open_socket(address, 1.0).close()
    except OSError:
        return False
    return True


class Process:
    """A program in the background, in a process group of its own."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as output:
            try:
                self._popen = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "PATH": _PATH, **environment},
                    start_new_session=True,
                    cwd=ROOT,
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
        """End it with all that it started."""
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

    :ivar directory: for their files, removed by whoever made it.
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
    ) -> Process:
        """Start *command* and wait until it listens on *address*.

        :raises Unmeasured: when the program is not there, or does not come up.
        """
        process = Process(name, command, self.directory / f"{name}.log", environment or {})
        self._processes.append(process)
        if address is not None:
            process.wait_until(lambda: listens(address))
        return process

    def write(self, name: str, text: str) -> Path:
        """A file in the directory."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path
