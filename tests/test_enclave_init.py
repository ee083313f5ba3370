"""The life of an enclave, on a clock of its own and with processes that are only played."""

from __future__ import annotations

import signal
from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.enclave.init import START_TIMEOUT, WATCHDOG_SECONDS, EnclaveInit, Ending, Plan
from nitroproxy.enclave.init_children import Command, OnLine

DAEMON = Command(["daemon"], {}, None)
APPLICATION = Command(["/app", "x"], {}, None)


class Played:
    """A process: what it was told, and how it prints and ends."""

    def __init__(self, on_line: OnLine, end: Callable[[int], object]) -> None:
        self.signals: list[int] = []
        self.left_killed = 0
        self.says = on_line
        self.end = end

    def signal(self, number: int) -> None:
        """See `Child.signal`."""
        self.signals.append(number)

    def kill_left(self) -> None:
        """See `Child.kill_left`."""
        self.left_killed += 1


class InitTests(SynchronousTestCase):
    """`EnclaveInit`."""

    def setUp(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.begin(APPLICATION)

    def begin(self, application: Command | None) -> None:
        """A new enclave."""
        self.clock = Clock()
        self.started: list[tuple[str, Played]] = []
        self.broken: str | None = None
        take: OnLine = lambda stream, line: self.lines.append((stream, line))  # noqa: E731
        self.init = EnclaveInit(self.clock, self.start, Plan(DAEMON, application, 30.0), take, take)
        self.done = self.init.run()

    def start(self, command: Command, on_line: OnLine, on_end: Callable[[int], object]) -> Played:
        """See `Start`."""
        if command.words[0] == self.broken:
            raise PermissionError(13, "Permission denied")
        self.started.append((command.words[0], Played(on_line, on_end)))
        return self.started[-1][1]

    def names(self) -> list[str]:
        """What has been started, in order."""
        return [name for name, _ in self.started]

    def ending(self) -> Ending:
        """How it ended, and that nothing is left to do."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return self.successResultOf(self.done)

    def test_application_waits(self) -> None:
        """The application is started when the daemon listens, once, and not before."""
        self.assertEqual(self.names(), ["daemon"])
        self.init.alive()
        self.assertEqual(self.names(), ["daemon"])
        self.init.ready()
        self.init.ready()
        self.assertEqual(self.names(), ["daemon", "/app"])

    def test_application_ends(self) -> None:
        """When the application ends the daemon is told to, and then the enclave ends with the application's status."""
        self.init.ready()
        daemon, application = (one for _, one in self.started)
        application.says("stderr", "oops")
        application.end(137)
        self.assertEqual(daemon.signals, [signal.SIGTERM])
        self.assertNoResult(self.done)
        daemon.end(0)
        self.assertEqual(self.ending(), Ending(137, "the application ended with 137", "oops", started=True))
        self.assertIn(("stderr", "oops"), self.lines)

    def test_daemon_that_does_not_drain(self) -> None:
        """A daemon that takes longer than its drain timeout is killed."""
        self.init.ready()
        daemon, application = (one for _, one in self.started)
        application.end(0)
        self.clock.advance(34.9)
        self.assertEqual(daemon.signals, [signal.SIGTERM])
        self.clock.advance(0.2)
        self.assertEqual(daemon.signals, [signal.SIGTERM, signal.SIGKILL])
        daemon.end(137)
        self.assertEqual(self.ending().status, 0)

    def test_daemon_does_not_start(self) -> None:
        """A daemon that ends before it listens ends the enclave, with its status and its last lines."""
        daemon = self.started[0][1]
        for number in range(30):
            daemon.says("stdout", f"line {number}")
        daemon.end(1)
        ending = self.ending()
        self.assertEqual((ending.status, ending.started), (1, False))
        self.assertEqual(ending.output.splitlines(), [f"line {number}" for number in range(10, 30)])

    def test_daemon_ends_with_0_before_it_is_ready(self) -> None:
        """An enclave that never worked does not end with 0."""
        self.started[0][1].end(0)
        self.assertEqual(self.ending().status, 1)

    def test_daemon_never_listens(self) -> None:
        """A daemon that does not say that it listens is killed when its time is up, and the enclave ends."""
        self.clock.advance(START_TIMEOUT)
        daemon = self.started[0][1]
        self.assertEqual(daemon.signals, [signal.SIGKILL])
        daemon.end(137)
        self.assertEqual(self.ending().status, 137)

    def test_restart(self) -> None:
        """A daemon that ends is started again, the application goes on, and is not started a second time."""
        self.init.ready()
        daemon = self.started[0][1]
        daemon.end(139)
        self.assertEqual((self.names(), daemon.left_killed), (["daemon", "/app"], 0))
        self.clock.advance(1)
        self.assertEqual(daemon.left_killed, 1, "a worker of it that hangs would keep the ports")
        self.init.ready()
        self.assertEqual(self.names(), ["daemon", "/app", "daemon"])
        self.assertNoResult(self.done)

    def test_pauses(self) -> None:
        """A daemon that ends again before it is ready is started after longer and longer pauses, up to a bound."""
        self.init.ready()
        pauses = []
        for _ in range(8):
            self.started[-1][1].end(1) if self.started[-1][0] == "daemon" else self.started[0][1].end(1)
            [call] = self.clock.getDelayedCalls()
            pauses.append(call.getTime() - self.clock.seconds())
            self.clock.advance(pauses[-1])
        self.assertEqual(pauses, [1, 2, 4, 8, 16, 30, 30, 30])
        self.init.ready()
        self.started[-1][1].end(1)
        [call] = self.clock.getDelayedCalls()
        self.assertEqual(call.getTime() - self.clock.seconds(), 1)

    def test_watchdog(self) -> None:
        """A daemon without a sign of life is aborted, then killed, and started again; one with signs is left alone."""
        self.init.ready()
        daemon = self.started[0][1]
        for _ in range(5):
            self.clock.advance(WATCHDOG_SECONDS - 0.1)
            self.init.alive()
        self.assertEqual(daemon.signals, [])
        self.clock.advance(WATCHDOG_SECONDS)
        self.assertEqual(daemon.signals, [signal.SIGABRT])
        self.clock.advance(5)
        self.assertEqual(daemon.signals, [signal.SIGABRT, signal.SIGKILL])
        daemon.end(137)
        self.clock.advance(1)
        self.assertEqual(self.names(), ["daemon", "/app", "daemon"])

    def test_stop(self) -> None:
        """SIGTERM goes to the application, each time; the daemon follows when the application has ended."""
        self.init.ready()
        daemon, application = (one for _, one in self.started)
        self.init.stop()
        self.init.stop()
        self.assertEqual((application.signals, daemon.signals), ([signal.SIGTERM] * 2, []))
        application.end(0)
        daemon.end(0)
        self.assertEqual(self.ending().status, 0)

    def test_stop_without_application(self) -> None:
        """An enclave that is a proxy only ends with the daemon's status when it is told to stop."""
        self.begin(None)
        self.init.ready()
        self.assertEqual(self.names(), ["daemon"])
        self.init.stop()
        self.assertEqual(self.started[0][1].signals, [signal.SIGTERM])
        self.started[0][1].end(0)
        self.assertEqual(self.ending().status, 0)

    def test_stop_while_starting(self) -> None:
        """Told to stop before the daemon listens, it starts no application."""
        self.init.stop()
        self.init.ready()
        self.assertEqual(self.names(), ["daemon"])
        self.started[0][1].end(0)
        self.assertEqual(self.ending().status, 0)

    def test_stop_between_two_daemons(self) -> None:
        """Told to stop while no daemon runs, it ends and starts none; with an application, when that has ended."""
        self.init.ready()
        self.started[0][1].end(1)
        self.init.stop()
        self.started[1][1].end(143)
        self.assertEqual(self.ending().status, 143)
        self.begin(None)
        self.init.ready()
        self.started[0][1].end(1)
        self.init.stop()
        self.assertEqual(self.ending().status, 0)

    def test_cannot_be_started(self) -> None:
        """A program that the kernel refuses ends the enclave with the reason: the daemon, or the application."""
        self.broken = "/app"
        self.init.ready()
        self.started[0][1].end(0)
        ending = self.ending()
        self.assertEqual((ending.status, ending.started), (126, True))
        self.assertIn("/app cannot be started: Permission denied", ending.reason)
        self.begin(None)
        self.init.ready()
        self.broken = "daemon"
        self.started[0][1].end(1)
        self.clock.advance(1)
        self.assertIn("the daemon cannot be started: Permission denied", self.ending().reason)
