"""Starts a worker: the same interpreter, twistd and reactor as the supervisor's, with the listening sockets and one end
of a socket pair as descriptors."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.application.reactors import getReactorTypes
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from nitroproxy.daemon import signals
from nitroproxy.proxy.transport import factory_of
from nitroproxy.workers.channel import Answerer, Channel
from nitroproxy.workers.worker import CHANNEL, MEMORY, WorkerStart

#: How a process ended, to follow "it" or its name.
Ended = str

#: Starts a worker by its number, with what it is given at the start and what it may ask; the last argument is called
#: once when its process has ended, with how. Raises OSError when there can be no process; then nothing is left of it.
Spawn = Callable[[int, WorkerStart, Mapping[str, Answerer], Callable[[Ended], object]], Channel]

_TWISTD: Final = "from twisted.scripts.twistd import run; run()"
#: The last descriptor of those that every process has.
_STANDARD: Final = 2
#: Addressed by systemd to the supervisor alone.
_SYSTEMD: Final = {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}


class Spawner:
    """Starts workers: a `Spawn`.

    :param plugin: the daemon's name for twistd.
    :param output: the descriptor that they log to.
    :param inherited: gives the descriptors that they have from `nitroproxy.workers.worker.MEMORY` on.
    """

    def __init__(
        self,
        reactor: Any,
        environ: Mapping[str, str],
        plugin: str,
        output: int,
        inherited: Callable[[], Sequence[int]],
    ) -> None:
        self._reactor = reactor
        self._environ = {name: value for name, value in environ.items() if name not in _SYSTEMD}
        self._plugin = plugin
        self._output = output
        self._inherited = inherited

    def __call__(
        self, number: int, start: WorkerStart, answerers: Mapping[str, Answerer], ended: Callable[[Ended], object]
    ) -> Channel:
        """See `Spawn`."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            descriptors: dict[int, int] = {0: 0, 1: self._output, 2: 2, CHANNEL: theirs.fileno()}
            descriptors.update(enumerate(self._inherited(), MEMORY))
            ours.setblocking(False)
            process = _Process(ended)
            # A worker that has closed its end no longer serves, whatever else it does.
            channel = Channel(self._reactor, answerers, process.kill)
            # Before there is a process: each of the two may fail for want of descriptors.
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory_of(lambda: channel))
            try:
                self._spawn(process, number, descriptors)
            except BaseException:
                channel.hang_up()
                raise
        channel.sendString(start.to_bytes())
        return channel

    def _spawn(self, process: _Process, number: int, descriptors: dict[int, int]) -> None:
        _pass_nothing_on()
        with signals.blocked():
            self._reactor.spawnProcess(
                process, sys.executable, self._command(number), self._environ, childFDs=descriptors
            )

    def _command(self, number: int) -> list[str]:
        module = type(self._reactor).__module__
        kinds: Iterable[Any] = getReactorTypes()
        reactors = [kind.shortName for kind in kinds if kind.moduleName == module]
        command = [sys.executable, "-P", "-c", _TWISTD, "-n", "--pidfile="]
        command += [f"--reactor={name}" for name in reactors[:1]]
        return [*command, self._plugin, "--worker", str(number)]


def _pass_nothing_on() -> None:
    """Let no process that is started from here inherit what this one has inherited and does not know. Twisted would
    have the kernel close it, which fails for a descriptor above the limit (RLIMIT_NOFILE)."""
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            if int(name) > _STANDARD:
                with suppress(OSError):  # The one that listed them is closed by now.
                    os.set_inheritable(int(name), False)


class _Process(ProcessProtocol):
    def __init__(self, ended: Callable[[Ended], object]) -> None:
        self._ended = ended

    def kill(self) -> None:
        """Kill the process, if there is one."""
        transport: Any = self.transport
        if transport is not None:
            try:
                transport.signalProcess("KILL")
            except ProcessExitedAlready:
                return

    def processEnded(self, reason: Failure) -> None:
        number = reason.value.signal if isinstance(reason.value, ProcessTerminated) else None
        status = getattr(reason.value, "exitCode", None)
        self._ended(f"was killed by signal {number}" if number else f"ended with status {status or 0}")
