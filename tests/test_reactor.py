"""The daemons' reactor: Twisted's own tests of a reactor, and what its short cut must not lose."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.test.connectionmixins import ConnectionTestsMixin, StreamClientTestsMixin
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.internet.test.test_core import SystemEventTestsBuilder
from twisted.internet.test.test_fdset import ReactorFDSetTestsBuilder
from twisted.internet.test.test_tcp import (
    AbortConnectionMixin,
    TCPConnectionTestsBuilder,
    TCPCreator,
    TCPTransportTestsBuilder,
)
from twisted.internet.test.test_threads import ThreadTestsBuilder
from twisted.internet.test.test_time import TimeTestsBuilder
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.reactor import EagerReactor

_LIMIT: Final = 20


class DescriptorTests(ReactorFDSetTestsBuilder, SynchronousTestCase):
    """Readers and writers come and go."""

    reactorFactory = EagerReactor

    def test_lostFileDescriptor(self) -> None:
        """Twisted skips it for its own epoll reactor, by that one's name."""


class SystemEventTests(SystemEventTestsBuilder, SynchronousTestCase):
    """It starts and stops."""

    reactorFactory = EagerReactor


class TimeTests(TimeTestsBuilder, SynchronousTestCase):
    """Calls come when they are due."""

    reactorFactory = EagerReactor


class ThreadTests(ThreadTestsBuilder, SynchronousTestCase):
    """Calls come from threads."""

    reactorFactory = EagerReactor


class TransportTests(TCPTransportTestsBuilder, SynchronousTestCase):
    """Writes and producers."""

    reactorFactory = EagerReactor


class TCPConnectionTests(TCPConnectionTestsBuilder, SynchronousTestCase):
    """Reading pauses and goes on, directions end."""

    reactorFactory = EagerReactor


class ConformanceTests(
    ReactorBuilder, ConnectionTestsMixin, StreamClientTestsMixin, AbortConnectionMixin, SynchronousTestCase
):
    """What Twisted demands of its stream transports, over TCP."""

    reactorFactory = EagerReactor
    endpoints = TCPCreator()
    timeout = _LIMIT
    port = 0

    def test_logPrefix(self) -> None:
        """There is no prefix of the legacy log: see `nitroproxy.reactor`."""

    def listen(self, reactor: Any, factory: Any) -> Any:
        """Listen."""
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.port = port.getHost().port
        return port

    def connect(self, reactor: Any, factory: Any) -> Any:
        """Connect to where `listen` does, or nobody."""
        if not self.port:
            with socket.socket() as bound:
                bound.bind(("127.0.0.1", 0))
                self.port = bound.getsockname()[1]
        return reactor.connectTCP("127.0.0.1", self.port, factory)


class Writer:
    """Wants to write, until it has; then *do* is called."""

    def __init__(self, reactor: Any, descriptor: int, do: Callable[[], object]) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._do = do

    def fileno(self) -> int:
        """A pipe's end."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Its name."""
        return "Writer"

    def doWrite(self) -> None:
        """Write all there is."""
        self._reactor.removeWriter(self)
        self._do()

    def connectionLost(self, reason: object) -> None:
        """Never."""


class AskedWhileWritingTests(ReactorBuilder, SynchronousTestCase):
    """What a writer asks of the reactor happens, though nothing else does that would wake it up."""

    reactorFactory = EagerReactor

    def write(self, do: Callable[[Any], object]) -> None:
        """Have a writer *do* something, in a reactor that otherwise sleeps for long."""
        reactor: Any = self.buildReactor()
        read, write = os.pipe()
        for descriptor in (read, write):
            self.addCleanup(os.close, descriptor)
        reactor.callWhenRunning(reactor.addWriter, Writer(reactor, write, lambda: do(reactor)))
        self.runReactor(reactor, _LIMIT)

    def test_stop(self) -> None:
        """The reactor stops."""
        self.write(lambda reactor: reactor.stop())

    def test_crash(self) -> None:
        """The reactor ends at once, as trial has it do."""
        self.write(lambda reactor: reactor.crash())

    def test_later(self) -> None:
        """A call comes when it is due."""
        self.write(lambda reactor: reactor.callLater(0.01, reactor.stop))

    def test_another_turn(self) -> None:
        """Who has written may write again, and so may another."""
        turns: list[int] = []

        def again(reactor: Any) -> None:
            turns.append(0)
            if len(turns) == 3:
                reactor.stop()
            else:
                read, write = os.pipe()
                self.addCleanup(os.close, read)
                self.addCleanup(os.close, write)
                reactor.addWriter(Writer(reactor, write, lambda: again(reactor)))

        self.write(again)
        self.assertEqual(len(turns), 3)
