"""Signals taken, ignored and blocked; with real ones, sent to this process."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.daemon.signals import blocked, ignore, take

ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class FakeReactor:
    """Calls at once what it is given from elsewhere."""

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        """See `IReactorFromThreads`."""
        call(*arguments)


class SignalTests(SynchronousTestCase):
    """The three signals."""

    def setUp(self) -> None:
        for number in ALL:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.addCleanup(signal.pthread_sigmask, signal.SIG_SETMASK, signal.pthread_sigmask(signal.SIG_BLOCK, []))
        self.taken: list[object] = []

    def test_take(self) -> None:
        """SIGTERM and SIGINT end the daemon, SIGHUP reloads; each through the reactor."""
        take(FakeReactor(), self.taken.append, lambda: self.taken.append("reload"))
        for number in ALL:
            os.kill(os.getpid(), number)
        self.assertEqual(self.taken, [signal.SIGTERM, signal.SIGINT, "reload"])

    def test_blocked(self) -> None:
        """A signal that comes while they are blocked waits, and is gone when the process ignores them (K6)."""
        take(FakeReactor(), self.taken.append, lambda: self.taken.append("reload"))
        with blocked():
            for number in ALL:
                # To this thread: the process of a test run may have others, in which nothing is blocked.
                signal.pthread_kill(threading.get_ident(), number)
            self.assertEqual(self.taken, [])
            ignore()
        self.assertEqual(self.taken, [])
        for number in ALL:
            os.kill(os.getpid(), number)

    def test_unblocked(self) -> None:
        """Afterwards what was blocked before is, and nothing else, also after an exception."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        with self.assertRaises(ValueError), blocked():
            raise ValueError
        self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, []), before)
        ignore()
        self.assertFalse(signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(ALL))
