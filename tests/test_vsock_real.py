"""Our endpoints on the kernel's AF_VSOCK: Twisted's own conformance tests, failures and their messages, much data. Runs
only in a guest with a vsock of its own, which sets NITROPROXY_TEST_VSOCK (`scripts/dev.sh vm`): there cid 1 is the
machine itself."""

from __future__ import annotations

import contextlib  # not imported from it: trial treats a name "suppress" specially
import os
import socket
from typing import Any, Final

from twisted.internet import asyncioreactor, epollreactor, error, pollreactor, selectreactor
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.test.connectionmixins import ConnectionTestsMixin, EndpointCreator, StreamClientTestsMixin
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.internet.test.test_tcp import (
    AbortConnectionMixin,
    ServerAbortsThenLoses,
    ServerAbortsTwice,
    WritingButNotAbortingClient,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

import nitroproxy.vsock.transport
from nitroproxy.daemon.reactor import EagerReactor
from nitroproxy.vsock.address import CID_ANY
from nitroproxy.vsock.endpoints import VsockClientEndpoint, VsockServerEndpoint
from nitroproxy.vsock.transport import LARGEST_SEND, VsockConnector, vsock_socket
from tests.test_vsock_kernel import LOCAL, PORTS, unprivileged
from tests.test_vsock_transport import REAL, VsockTestCase

if not REAL:
    skip = "needs a guest with a vsock of its own: scripts/dev.sh vm"

reactor: Any = global_reactor


class RecordingSocket(socket.socket):
    """A vsock socket that notes the sizes of its sends."""

    sizes: Final[list[int]] = []

    def send(self, data: Any, flags: int = 0) -> int:
        """Note, and send."""
        self.sizes.append(len(data))
        return super().send(data, flags)


class FailureTests(VsockTestCase):
    """The report to the caller for each failure that the kernel has."""

    async def refused(self, connecting: Deferred[Any], kind: type[Exception], words: str) -> None:
        """It fails with that kind of error and that message."""
        failure = await self.assertFailure(connecting, kind)
        self.assertIn(words, str(failure))

    async def test_connecting(self) -> None:
        """There is no listener; there is no such VM."""
        await self.refused(self.connect(next(PORTS)), error.ConnectionRefusedError, "no listener on that port")
        for cid in (16, 99):
            unknown = VsockClientEndpoint(reactor, cid, 5000).connect(Factory.forProtocol(Protocol))
            await self.refused(unknown, error.ConnectError, "no VM with this cid is running")

    async def test_full_queue(self) -> None:
        """The accept queue is full."""
        listening = vsock_socket()
        self.addCleanup(listening.close)
        port = next(PORTS)
        listening.bind((CID_ANY, port))
        listening.listen(1)
        attempts = [self.connect(port) for _ in range(8)]
        refused = 0
        for attempt in attempts:
            outcome: Any = await attempt.addErrback(lambda failure: failure.value)
            if isinstance(outcome, Exception):
                refused += 1
                self.assertIsInstance(outcome, error.ConnectionRefusedError)
                self.assertIn("its accept queue is full", str(outcome))
            else:
                outcome.transport.abortConnection()
                await outcome.lost
        self.assertGreater(refused, 0)

    async def test_listening(self) -> None:
        """The port is in use; the cid is another machine's; the port needs a capability."""
        port = await self.listen()
        for cid, number, words in (
            (CID_ANY, port.getHost().port, "the port is taken"),
            (LOCAL, port.getHost().port, "the port is taken"),
            (99, next(PORTS), "the cid is not this machine's own"),
        ):
            listening = VsockServerEndpoint(reactor, number, cid).listen(self.server)
            await self.refused(listening, error.CannotListenError, words)
        with unprivileged():
            listening = VsockServerEndpoint(reactor, 1023).listen(self.server)
        await self.refused(listening, error.CannotListenError, "ports below 1024 need CAP_NET_BIND_SERVICE")

    async def test_nothing_leaks(self) -> None:
        """Connections that fail, are aborted or end in order leave no descriptor behind."""
        port = await self.listen()
        before = open_sockets()
        for _ in range(100):
            await self.assertFailure(self.connect(next(PORTS)), error.ConnectionRefusedError)
            accepted = self.server.accepted
            client = await self.connect(port.getHost().port)
            server = await accepted
            client.transport.abortConnection()
            await client.lost
            await server.read_ended
            server.transport.loseConnection()
            await server.lost
        self.assertEqual(open_sockets() - before, set())


def open_sockets() -> set[str]:
    """This process's open sockets."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor that lists them
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return {name for name in found if name.startswith("socket:")}


@implementer(IPushProducer, IHalfCloseableProtocol)
class Pouring(Protocol):
    """Sends a pattern, and checks that it receives the same, byte for byte.

    The length of the pattern is prime, so that any lost, repeated or swapped piece is detected.
    """

    SIZE: Final = 256 << 20
    PIECE: Final = 128 << 10
    _pattern: Final = os.urandom(1_000_003) * 2
    _period: Final = 1_000_003

    transport: Any

    def __init__(self) -> None:
        self._sent = self._received = 0
        self._paused = False
        self.done: Deferred[int] = Deferred()

    @classmethod
    def _part(cls, start: int, length: int) -> bytes:
        start %= cls._period
        return cls._pattern[start : start + length]

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """The peer is slower."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Send until paused; at the end close this direction."""
        self._paused = False
        while not self._paused and self._sent < self.SIZE:
            self.transport.write(self._part(self._sent, self.PIECE))
            self._sent += self.PIECE
        if self._sent == self.SIZE and self.transport.producer is self:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._paused = True

    def dataReceived(self, data: bytes) -> None:
        if data != self._part(self._received, len(data)):
            self.done.errback(AssertionError(f"a wrong byte after {self._received}"))
            self.transport.abortConnection()
        self._received += len(data)

    def readConnectionLost(self) -> None:
        if not self.done.called:
            self.done.callback(self._received)

    def writeConnectionLost(self) -> None:
        """Everything has been sent."""


class BulkTests(VsockTestCase):
    """Much data."""

    timeout = 100

    async def test_each_way_at_once(self) -> None:
        """256 MiB go each way at once over one connection, in sends of 31 KiB at most, without a wrong byte."""
        RecordingSocket.sizes.clear()
        self.patch(
            nitroproxy.vsock.transport, "vsock_socket", lambda: RecordingSocket(socket.AF_VSOCK, socket.SOCK_STREAM)
        )
        accepted: Deferred[Pouring] = Deferred()

        def accept() -> Pouring:
            made = Pouring()
            accepted.callback(made)
            return made

        port = await self.listen(Factory.forProtocol(accept))
        factory = Factory.forProtocol(Pouring)
        client: Any = await VsockClientEndpoint(reactor, LOCAL, port.getHost().port).connect(factory)
        server = await accepted
        received = await gatherResults([client.done, server.done])
        self.assertEqual(received, [Pouring.SIZE] * 2)
        self.assertEqual(max(RecordingSocket.sizes), LARGEST_SEND)
        for side in (client, server):
            side.transport.loseConnection()
        await deferLater(reactor, 0, lambda: None)


class VsockCreator(EndpointCreator):
    """Endpoints of the kind to be tested, made from strings."""

    def server(self, reactor: Any) -> Any:
        """Listens on an unused port."""
        return serverFromString(reactor, f"vsock:{next(PORTS)}")

    def client(self, reactor: Any, serverAddress: Any) -> Any:
        """Connects to it."""
        return clientFromString(reactor, f"vsock:cid={LOCAL}:port={serverAddress.port}")


class Conformance(ReactorBuilder, ConnectionTestsMixin, StreamClientTestsMixin, AbortConnectionMixin):
    """Twisted's requirements for its own stream transports."""

    endpoints = VsockCreator()
    timeout = 20
    port = 0

    def test_serverAbortsConnectionTwice(self) -> None:
        """TCP distinguishes a peer that aborts from one that closes; vsock does not."""
        self.runAbortTest(WritingButNotAbortingClient, ServerAbortsTwice, error.ConnectionDone)

    def test_serverAbortsConnectionThenLosesConnection(self) -> None:
        """The same, with an orderly close after the abort."""
        self.runAbortTest(WritingButNotAbortingClient, ServerAbortsThenLoses, error.ConnectionDone)

    def listen(self, reactor: Any, factory: Any) -> Any:
        """Listen."""
        self.port = next(PORTS)
        ports: list[Any] = []
        VsockServerEndpoint(reactor, self.port).listen(factory).addCallback(ports.append)
        return ports[0]

    def connect(self, reactor: Any, factory: Any) -> Any:
        """Connect to the address that `listen` returned."""
        connector = VsockConnector(LOCAL, self.port, factory, 30, reactor)
        connector.connect()
        return connector


class EagerConformanceTests(Conformance, SynchronousTestCase):
    """On the reactor that the daemons use."""

    reactorFactory = EagerReactor

    def test_logPrefix(self) -> None:
        """There is no prefix of the legacy log: see `nitroproxy.daemon.reactor`."""


class EpollConformanceTests(Conformance, SynchronousTestCase):
    """On Twisted's default."""

    reactorFactory = epollreactor.EPollReactor


class PollConformanceTests(Conformance, SynchronousTestCase):
    """On poll."""

    reactorFactory = pollreactor.PollReactor


class SelectConformanceTests(Conformance, SynchronousTestCase):
    """On select."""

    reactorFactory = selectreactor.SelectReactor


class AsyncioConformanceTests(Conformance, SynchronousTestCase):
    """On asyncio."""

    reactorFactory = asyncioreactor.AsyncioSelectorReactor
