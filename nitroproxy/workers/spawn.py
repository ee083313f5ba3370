"""Starts a worker: the same interpreter, twistd and reactor as the supervisor's, with the listening sockets and one end
of a socket pair as descriptors."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from twisted.application.reactors import getReactorTypes
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from nitroproxy.proxy.transport import factory_of
from nitroproxy.workers.channel import Answerer, Channel
from nitroproxy.workers.worker import CHANNEL, MEMORY, WorkerStart

#: How a process ended, to follow "it" or its name.
Ended = str

#: Starts a worker by its number, with its orders, and what it may ask; told when the process has ended, and how.
Spawn = Callable[[int, WorkerStart, Mapping[str, Answerer], Callable[[Ended], object]], Channel]

_TWISTD: Final = "from twisted.scripts.twistd import run; run()"
#: What systemd tells the supervisor alone.
_SYSTEMD: Final = {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}


class Spawner:
    """Starts workers.

    :param output: the descriptor that they log to.
    :param inherited: gives the descriptors that they have from `nitroproxy.workers.worker.MEMORY` on.
    """

    def __init__(
        self, reactor: Any, environ: Mapping[str, str], output: int, inherited: Callable[[], Sequence[int]]
    ) -> None:
        self._reactor = reactor
        self._environ = {name: value for name, value in environ.items() if name not in _SYSTEMD}
        self._output = output
        self._inherited = inherited

    def __call__(
        self, number: int, orders: WorkerStart, answerers: Mapping[str, Answerer], ended: Callable[[Ended], object]
    ) -> Channel:
        """See `Spawn`."""
        ours, theirs = socket.socketpair()
        descriptors: dict[int, int] = {0: 0, 1: self._output, 2: 2, CHANNEL: theirs.fileno()}
        descriptors.update(enumerate(self._inherited(), MEMORY))
        with ours, theirs:
            process = self._reactor.spawnProcess(
                _Process(ended), sys.executable, self._command(number), self._environ, childFDs=descriptors
            )
            ours.setblocking(False)
            # A worker that has closed its end does not serve any more, whatever else it does.
            channel = Channel(self._reactor, answerers, lambda: _kill(process))
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory_of(lambda: channel))
        channel.sendString(orders.to_bytes())
        return channel

    def _command(self, number: int) -> list[str]:
        module = type(self._reactor).__module__
        kinds: Iterable[Any] = getReactorTypes()
        reactors = [kind.shortName for kind in kinds if kind.moduleName == module]
        command = [sys.executable, "-P", "-c", _TWISTD, "-n", "--pidfile="]
        command += [f"--reactor={name}" for name in reactors[:1]]
        return [*command, "nitroproxy-host", "--worker", str(number)]


def _kill(process: Any) -> None:
    try:
        process.signalProcess("KILL")
    except ProcessExitedAlready:
        return


class _Process(ProcessProtocol):
    def __init__(self, ended: Callable[[Ended], object]) -> None:
        self._ended = ended

    def processEnded(self, reason: Failure) -> None:
        number = reason.value.signal if isinstance(reason.value, ProcessTerminated) else None
        status = getattr(reason.value, "exitCode", None)
        self._ended(f"was killed by signal {number}" if number else f"ended with status {status or 0}")
