"""How a worker's process is started; with real processes: see `test_load`."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.workers.channel import first_string
from nitroproxy.workers.spawn import Spawner
from nitroproxy.workers.worker import CHANNEL, MEMORY, WorkerStart


class FakeProcess:
    """What spawnProcess gives."""

    def __init__(self) -> None:
        self.signals: list[str] = []

    def signalProcess(self, name: str) -> None:
        """Take a signal, once."""
        if self.signals:
            raise ProcessExitedAlready()
        self.signals.append(name)


class FakeReactor(Clock):
    """Starts no process, but keeps what it would have had."""

    def __init__(self) -> None:
        super().__init__()
        self.process = FakeProcess()

    def spawnProcess(self, protocol: Any, executable: str, args: Any, env: Any, childFDs: dict[int, int]) -> Any:
        """Keep it."""
        self.protocol, self.args, self.env = protocol, args, env
        self.end = os.dup(childFDs[CHANNEL])
        self.descriptors = childFDs
        return self.process

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        """Make the connection."""
        self.ours = socket.socket(fileno=os.dup(descriptor))
        channel = factory.buildProtocol(None)
        channel.makeConnection(self)

    def write(self, data: bytes) -> None:
        """Send."""
        self.ours.sendall(data)

    def writeSequence(self, pieces: list[bytes]) -> None:
        """Send."""
        self.write(b"".join(pieces))


class LaunchTests(SynchronousTestCase):
    """One worker."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        environ = {
            "PATH": "/bin",
            "NOTIFY_SOCKET": "/n",
            "WATCHDOG_USEC": "1",
            "LISTEN_FDS": "1",
            "JOURNAL_STREAM": "1:2",
        }
        self.ended: list[str] = []
        self.orders = WorkerStart(b"{}", 3, ["a", "b"], "tag")
        launcher = Spawner(self.reactor, environ, 69, lambda: [70, 71, 72])
        self.channel = launcher(3, self.orders, {}, self.ended.append)
        self.addCleanup(self.reactor.ours.close)
        self.addCleanup(os.close, self.reactor.end)

    def test_process(self) -> None:
        """It is twistd's, knows its number, and has the memory and the sockets after its end of the channel; what
        systemd tells the supervisor alone it does not hear."""
        self.assertEqual(self.reactor.args[-3:], ["nitroproxy-host", "--worker", "3"])
        self.assertEqual(self.reactor.descriptors[1], 69, "it logs where the supervisor does")
        self.assertEqual(
            {fd: self.reactor.descriptors[fd] for fd in (MEMORY, MEMORY + 1, MEMORY + 2)}, {4: 70, 5: 71, 6: 72}
        )
        self.assertEqual(self.reactor.env, {"PATH": "/bin", "JOURNAL_STREAM": "1:2"})

    def test_orders(self) -> None:
        """The first that it reads are its orders."""
        self.assertEqual(WorkerStart.read(first_string(self.reactor.end)), self.orders)

    def test_ended(self) -> None:
        """How it ended is told in words."""
        for error, words in (
            (ProcessTerminated(signal=9), "was killed by signal 9"),
            (ProcessTerminated(exitCode=1), "ended with status 1"),
            (ProcessDone(0), "ended with status 0"),
        ):
            self.reactor.protocol.processEnded(Failure(error))
            self.assertEqual(self.ended.pop(), words)

    def test_deaf(self) -> None:
        """A worker whose end of the channel is closed is killed, if it is still there."""
        self.channel.connectionLost()
        self.channel.connectionLost()
        self.assertEqual(self.reactor.process.signals, ["KILL"])
