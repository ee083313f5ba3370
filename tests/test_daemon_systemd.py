"""systemd's notification protocol, spoken to a socket of the test's own."""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.daemon.systemd import Notifier


class NotifierTests(SynchronousTestCase):
    """What the service manager is told."""

    def setUp(self) -> None:
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.setblocking(False)

    def told(self) -> list[str]:
        return self.manager.recv(4096).decode().split("\n")

    def test_messages(self) -> None:
        """Ready, status, reloading, stopping, the ping; a status is one line."""
        path = f"{self.mktemp()[-40:]}.sock".replace("/", "_")
        self.manager.bind(path)
        notifier = Notifier({"NOTIFY_SOCKET": path})
        notifier.ready("up\nREADY=0")
        self.assertEqual(self.told(), ["READY=1", "STATUS=up READY=0"])
        notifier.status("x")
        self.assertEqual(self.told(), ["STATUS=x"])
        notifier.reloading()
        reloading, when = self.told()
        self.assertEqual(reloading, "RELOADING=1")
        self.assertRegex(when, r"^MONOTONIC_USEC=\d+$")
        notifier.stopping("y", 90.5)
        self.assertEqual(self.told(), ["STOPPING=1", "STATUS=y", "EXTEND_TIMEOUT_USEC=90500000"])
        notifier.ping()
        self.assertEqual(self.told(), ["WATCHDOG=1"])

    def test_abstract(self) -> None:
        """The manager's socket may be in the abstract namespace."""
        name = f"nitroproxy-test-{os.getpid()}"
        self.manager.bind("\0" + name)
        Notifier({"NOTIFY_SOCKET": "@" + name}).ping()
        self.assertEqual(self.told(), ["WATCHDOG=1"])

    def test_nobody_asked(self) -> None:
        """Without a manager, or with one that has gone, nothing happens."""
        for environ in ({}, {"NOTIFY_SOCKET": "/nonexistent/socket"}):
            Notifier(environ).ready("x")
        self.assertRaises(BlockingIOError, self.told)

    def test_watchdog(self) -> None:
        """The watchdog's time, if it is meant for this process."""
        for environ, seconds in (
            ({"WATCHDOG_USEC": "2000000"}, 2.0),
            ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
            ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, 0.0),
            ({"WATCHDOG_USEC": "x"}, 0.0),
            ({}, 0.0),
        ):
            self.assertEqual(Notifier(environ).watchdog_seconds, seconds)
