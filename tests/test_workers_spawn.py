"""How a worker's process is started; with real processes: see `test_load`."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.workers import spawn
from nitroproxy.workers.channel import first_string
from nitroproxy.workers.spawn import Spawner
from nitroproxy.workers.worker import CHANNEL, MEMORY, WorkerStart


class FakeProcess:
    """What is a process's transport."""

    def __init__(self) -> None:
        self.signals: list[str] = []

    def signalProcess(self, name: str) -> None:
        """Take a signal, once."""
        if self.signals:
            raise ProcessExitedAlready()
        self.signals.append(name)


class FakeReactor(Clock):
    """Starts no process, but keeps what it would have had.

    :ivar error: raised instead of a start.
    """

    def __init__(self) -> None:
        super().__init__()
        self.process = FakeProcess()
        self.error: Exception | None = None
        self.aborted = False
        self.blocked: set[int] = set()

    def spawnProcess(self, protocol: Any, executable: str, args: Any, env: Any, childFDs: dict[int, int]) -> Any:
        """Keep it."""
        self.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        if self.error is not None:
            raise self.error
        self.protocol, self.args, self.env = protocol, args, env
        self.end = os.dup(childFDs[CHANNEL])
        self.descriptors = childFDs
        protocol.makeConnection(self.process)
        return self.process

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        """Make the connection."""
        self.ours = socket.socket(fileno=os.dup(descriptor))
        self.channel = factory.buildProtocol(None)
        self.channel.makeConnection(self)

    def write(self, data: bytes) -> None:
        """Send."""
        self.ours.sendall(data)

    def writeSequence(self, pieces: list[bytes]) -> None:
        """Send."""
        self.write(b"".join(pieces))

    def abortConnection(self) -> None:
        """Close; the channel hears of it."""
        self.aborted = True
        self.channel.connectionLost()


class SpawnTests(SynchronousTestCase):
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
        self.given = WorkerStart(b"{}", 3, ["a", "b"], b"key")
        self.spawner = Spawner(self.reactor, environ, "nitroproxy-enclave", 69, lambda: [70, 71, 72])

    def spawn(self) -> Any:
        channel = self.spawner(3, self.given, {}, self.ended.append)
        self.addCleanup(self.reactor.ours.close)
        self.addCleanup(os.close, self.reactor.end)
        return channel

    def test_process(self) -> None:
        """It is twistd's with the daemon's plugin, knows its number, and has the memory and the sockets after its end
        of the channel; what systemd addresses to the supervisor alone it does not get."""
        self.spawn()
        self.assertEqual(self.reactor.args[-3:], ["nitroproxy-enclave", "--worker", "3"])
        self.assertEqual(self.reactor.descriptors[1], 69, "it logs where the supervisor does")
        self.assertEqual(
            {fd: self.reactor.descriptors[fd] for fd in (MEMORY, MEMORY + 1, MEMORY + 2)}, {4: 70, 5: 71, 6: 72}
        )
        self.assertEqual(self.reactor.env, {"PATH": "/bin", "JOURNAL_STREAM": "1:2"})

    def test_first_message(self) -> None:
        """The first message that it reads is what it is given."""
        self.spawn()
        self.assertEqual(WorkerStart.read(first_string(self.reactor.end)), self.given)

    def test_signals(self) -> None:
        """It begins with the signals blocked that go to a terminal's whole process group; the supervisor does not keep
        them blocked, not even when the start fails (K6)."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        self.spawn()
        self.assertLessEqual({signal.SIGTERM, signal.SIGINT, signal.SIGHUP}, self.reactor.blocked)
        self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, []), before)
        self.reactor.error = BlockingIOError(errno.EAGAIN, "no process")
        self.assertRaises(BlockingIOError, self.spawner, 3, self.given, {}, self.ended.append)
        self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, []), before)
        self.reactor.ours.close()

    def test_inherited(self) -> None:
        """What the daemon has inherited and does not know is kept from its workers, whatever its number: above the
        limit it could not be closed for them."""
        self.patch(spawn, "_STANDARD", 999)  # This test has descriptors of its own.
        null = os.open(os.devnull, os.O_RDONLY)
        unknown = fcntl.fcntl(null, fcntl.F_DUPFD, 1000)
        os.close(null)
        self.addCleanup(os.close, unknown)
        os.set_inheritable(unknown, True)
        self.spawn()
        self.assertFalse(os.get_inheritable(unknown))

    def test_ended(self) -> None:
        """How it ended is said in words."""
        self.spawn()
        for error, words in (
            (ProcessTerminated(signal=9), "was killed by signal 9"),
            (ProcessTerminated(exitCode=1), "ended with status 1"),
            (ProcessDone(0), "ended with status 0"),
        ):
            self.reactor.protocol.processEnded(Failure(error))
            self.assertEqual(self.ended.pop(), words)

    def test_deaf(self) -> None:
        """A worker whose end of the channel is closed is killed, if it is still there."""
        channel = self.spawn()
        channel.connectionLost()
        channel.connectionLost()
        self.assertEqual(self.reactor.process.signals, ["KILL"])

    def test_no_process(self) -> None:
        """When there can be no process (fork fails), the channel is closed, no descriptor is left, and the caller
        hears of it once."""
        self.reactor.error = BlockingIOError(errno.EAGAIN, "no process")
        before = set(os.listdir("/proc/self/fd"))
        self.assertRaises(BlockingIOError, self.spawner, 3, self.given, {}, self.ended.append)
        self.assertTrue(self.reactor.aborted)
        self.reactor.ours.close()
        self.assertEqual((set(os.listdir("/proc/self/fd")), self.ended), (before, []))

    def test_no_descriptors(self) -> None:
        """When descriptors run out before there is a process, none is started and none is left."""

        def adopt(descriptor: int, family: int, factory: Any) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(self.reactor, "adoptStreamConnection", adopt)
        before = set(os.listdir("/proc/self/fd"))
        self.assertRaises(OSError, self.spawner, 3, self.given, {}, self.ended.append)
        self.assertEqual((set(os.listdir("/proc/self/fd")), self.ended), (before, []))
        self.assertFalse(hasattr(self.reactor, "args"))
