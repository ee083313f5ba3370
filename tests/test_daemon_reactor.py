"""The daemons' reactor: Twisted's own tests of a reactor, and what its short cut must not lose."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import UserError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
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
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.daemon.reactor import EagerReactor, keeps_monotonic_time

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


#: A process whose system clock is set, back or forward, while a call is due in a moment and another in a minute.
_STEPPED: Final = """
import sys, time
clock, step = time.time, 0.0
time.time = lambda: clock() + step
from nitroproxy.daemon.reactor import install
install()
from twisted.internet import reactor
def set_clock():
    global step
    step = float(sys.argv[1])
reactor.callLater(60, print, "early", flush=True)
reactor.callLater(0, set_clock)
reactor.callLater(0.2, print, "due", flush=True)
reactor.callLater(0.2, reactor.stop)
reactor.run()
"""


class ClockTests(SynchronousTestCase):
    """The system's clock steps."""

    def test_steps(self) -> None:
        """Set back an hour it delays no call, set forward two minutes it brings none early."""
        for step in ("-3600", "120"):
            command = [sys.executable, "-c", _STEPPED, step]
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
            self.assertEqual(done.stdout, "due\n")

    def test_which(self) -> None:
        """This reactor is known to be independent of the clock, and Twisted's own are not."""
        self.assertTrue(keeps_monotonic_time(EagerReactor))
        self.assertFalse(keeps_monotonic_time(EPollReactor))


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
        """There is no prefix of the legacy log: see `nitroproxy.daemon.reactor`."""

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

    connected = True

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


class Witness(Protocol):
    """Notes what a peer says, and how it ends."""

    said = b""
    reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.said += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


class Host(Factory):
    """Gives out one protocol."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._protocol


class LastWordsTests(ReactorBuilder, SynchronousTestCase):
    """What a peer said before it closed is read although a write to it fails."""

    reactorFactory = EagerReactor

    def setUp(self) -> None:
        """A connection whose other end this test has."""
        self.reactor: Any = self.buildReactor()
        self.witness = Witness()
        mine, self.peer = socket.socketpair()
        mine.setblocking(False)
        self.reactor.adoptStreamConnection(mine.fileno(), socket.AF_UNIX, Host(self.witness))
        mine.close()

    def farewell(self) -> None:
        """The peer speaks and closes."""
        self.peer.sendall(b"last words")
        self.peer.close()

    def check(self) -> None:
        """The peer has been heard, and the loss is one."""
        self.reactor.callLater(0.05, self.reactor.stop)
        self.runReactor(self.reactor, _LIMIT)
        assert self.witness.reason is not None
        self.assertEqual(self.witness.said, b"last words")

    def test_before_the_turn(self) -> None:
        """It closed before the turn in which the write is tried: what can be read is read first."""

        def both() -> None:
            self.farewell()
            self.witness.transport.write(b"too late")  # type: ignore[union-attr]

        self.reactor.callWhenRunning(both)
        self.check()

    def test_within_the_turn(self) -> None:
        """It closes between the turn's reading and its writing: the failed write is told after one more read."""
        read, write = os.pipe()
        for descriptor in (read, write):
            self.addCleanup(os.close, descriptor)

        def both() -> None:
            self.witness.transport.write(b"too late")  # type: ignore[union-attr]
            self.reactor.addWriter(Writer(self.reactor, write, self.farewell))  # who asked last writes first

        self.reactor.callWhenRunning(both)
        self.check()


class ConnectingTests(ReactorBuilder, SynchronousTestCase):
    """A client that still connects is not eager: its first write would be a second connect()."""

    reactorFactory = EagerReactor

    def test_not_eager(self) -> None:
        """It waits for epoll."""
        reactor: Any = self.buildReactor()
        read, write = os.pipe()
        for descriptor in (read, write):
            self.addCleanup(os.close, descriptor)
        writer = Writer(reactor, write, lambda: None)
        writer.connected = False
        reactor.addWriter(writer)
        self.assertIn(write, reactor._writes)
        reactor.removeWriter(writer)
        self.assertEqual(reactor.getWriters(), [])


class Dial(ClientFactory):
    """Makes one protocol, and keeps the reasons why there was no connection."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self.failures: list[Any] = []

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.failures.append(reason.type)


class Reader:
    """Has something to read, once; then *do* is called."""

    connected = True

    def __init__(self, reactor: Any, descriptor: int, do: Callable[[], object]) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._do = do

    def fileno(self) -> int:
        """A pipe's end."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Its name."""
        return "Reader"

    def doRead(self) -> None:
        """Read no more."""
        self._reactor.removeReader(self)
        self._do()

    def connectionLost(self, reason: object) -> None:
        """Never."""


class AnothersEventTests(ReactorBuilder, SynchronousTestCase):
    """An event of a socket that was closed within the turn is not taken for one of who has its number now."""

    reactorFactory = EagerReactor

    def test_dialled_again(self) -> None:
        """An attempt is given up when its refusal has been reported but not handled; the next is another's."""
        reactor: Any = self.buildReactor()
        given_up, next_one = Dial(Protocol()), Dial(Witness())
        numbers: list[int] = []
        read, write = os.pipe()
        for descriptor in (read, write):
            self.addCleanup(os.close, descriptor)
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            nobody = bound.getsockname()[1]

        def begin() -> None:
            os.write(write, b"x")
            reactor.addReader(Reader(reactor, read, dial_another))
            self.connector = reactor.connectTCP("127.0.0.1", nobody, given_up)

        def dial_another() -> None:
            numbers.append(self.connector.transport.fileno())
            self.connector.stopConnecting()
            other = reactor.connectTCP("127.0.0.1", server.getsockname()[1], next_one)
            numbers.append(other.transport.fileno())
            reactor.callLater(0.05, reactor.stop)

        reactor.callWhenRunning(begin)
        self.runReactor(reactor, _LIMIT)
        self.assertEqual(numbers[0], numbers[1])
        self.assertEqual((given_up.failures, next_one.failures), ([UserError], []))
