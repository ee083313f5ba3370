"""AF_VSOCK as the kernel has it: where it differs from TCP, and our endpoints under Twisted's own conformance tests.

Only in a guest with a vsock of its own, which sets NITROPROXY_TEST_VSOCK (`scripts/dev.sh vm`): cid 1 is the machine
itself there.
"""

from __future__ import annotations

import array
import contextlib  # not from it: a name "suppress" means something to trial
import errno
import fcntl
import itertools
import os
import select
import socket
import termios
from collections.abc import Callable, Iterator
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
from nitroproxy.vsock.address import CID_ANY
from nitroproxy.vsock.endpoints import VsockClientEndpoint, VsockServerEndpoint
from nitroproxy.vsock.transport import LARGEST_SEND, VsockConnector, vsock_socket
from tests.test_vsock_transport import REAL, VsockTestCase

if not REAL:
    skip = "needs a guest with a vsock of its own: scripts/dev.sh vm"

reactor: Any = global_reactor
LOCAL: Final = 1
HOST: Final = 2
_PORTS: Final = itertools.count(20000)


class RecordingSocket(socket.socket):
    """A vsock socket that notes the sizes of what it is given to send."""

    sizes: Final[list[int]] = []

    def send(self, data: Any, flags: int = 0) -> int:
        """Note, and send."""
        self.sizes.append(len(data))
        return super().send(data, flags)


class KernelTests(SynchronousTestCase):
    """What `nitroproxy.vsock.transport` is built on: should one of these fail, read its overrides anew."""

    def listen(self, cid: int = CID_ANY, backlog: int = 16) -> tuple[socket.socket, int]:
        """A listening socket and its port."""
        port = next(_PORTS)
        listening = self.make()
        listening.bind((cid, port))
        listening.listen(backlog)
        return listening, port

    def make(self) -> socket.socket:
        """A socket that is closed at the end."""
        made = vsock_socket()
        made.settimeout(5)
        self.addCleanup(made.close)
        return made

    def pair(self, cid: int = LOCAL) -> tuple[socket.socket, socket.socket]:
        """A connection's two ends: who connected, who accepted."""
        listening, port = self.listen()
        client = self.make()
        client.connect((cid, port))
        server, _ = listening.accept()
        server.settimeout(5)
        self.addCleanup(server.close)
        return client, server

    def assert_errno(self, number: int, call: Callable[..., object], *arguments: Any) -> None:
        """*call* fails with that errno."""
        failure = self.assertRaises(OSError, call, *arguments)
        self.assertEqual(errno.errorcode.get(failure.errno or 0), errno.errorcode[number])

    def test_names(self) -> None:
        """Addresses are (cid, port); the own cid of a socket that connected reads as any."""
        listening, port = self.listen()
        client = self.make()
        client.connect((LOCAL, port))
        server, peer = listening.accept()
        self.addCleanup(server.close)
        self.assertEqual(listening.getsockname(), (CID_ANY, port))
        self.assertEqual(client.getsockname()[0], CID_ANY)
        self.assertEqual(client.getpeername(), (LOCAL, port))
        self.assertEqual(peer, (LOCAL, client.getsockname()[1]))
        self.assertEqual(server.getpeername(), peer)

    def test_host_cid_is_local(self) -> None:
        """Without a VM in sight cid 2 is this machine too, and its peer is cid 1."""
        _, server = self.pair(HOST)
        self.assertEqual(server.getpeername()[0], LOCAL)

    def test_port_is_cut_down(self) -> None:
        """Python takes port 2^32 for 0 without a word: `check_port` must refuse it."""
        bound = self.make()
        bound.bind((CID_ANY, 1 << 32))
        self.assertEqual(bound.getsockname()[1], 0)

    def test_bytes_options(self) -> None:
        """setsockopt with bytes and getsockopt with a length fail; integers work."""
        client, _ = self.pair()
        self.assertRaises((TypeError, OSError), client.setsockopt, socket.SOL_SOCKET, socket.SO_LINGER, bytes(8))
        self.assertRaises((TypeError, OSError), client.getsockopt, socket.SOL_SOCKET, socket.SO_LINGER, 8)
        self.assertEqual(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)

    def test_options_that_are_not_there(self) -> None:
        """TCP_NODELAY, SO_REUSEPORT, FIONREAD, SIOCOUTQ and datagrams do not exist."""
        client, _ = self.pair()
        self.assert_errno(errno.ENOPROTOOPT, client.setsockopt, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.assert_errno(errno.EOPNOTSUPP, client.setsockopt, socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for request in (termios.FIONREAD, termios.TIOCOUTQ):
            self.assertRaises(OSError, fcntl.ioctl, client, request, array.array("i", [0]))
        self.assert_errno(errno.ENODEV, socket.socket, socket.AF_VSOCK, socket.SOCK_DGRAM)

    def test_writes_after_the_peers_close(self) -> None:
        """Empty or not, the first send after the peer's close is EPIPE; what the peer sent last can still be read."""
        for data in (b"", b"x"):
            client, server = self.pair()
            server.sendall(b"last words")
            server.close()
            self.assertEqual(client.recv(4), b"last")
            self.assert_errno(errno.EPIPE, client.send, data)
            self.assertEqual(client.recv(100), b" words")
            self.assertEqual(client.recv(100), b"")

    def test_half_close(self) -> None:
        """One direction can end while the other goes on."""
        client, server = self.pair()
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(server.recv(100), b"question")
        self.assertEqual(server.recv(100), b"")
        server.sendall(b"answer")
        self.assertEqual(client.recv(100), b"answer")

    def test_reset_reads_as_the_end(self) -> None:
        """A peer that drops what it has not read ends the connection without an error: an end proves nothing."""
        client, server = self.pair()
        client.sendall(bytes(1000))
        server.close()
        self.assertEqual(client.recv(100), b"")

    def test_refusal(self) -> None:
        """Where nobody listens connect fails with ECONNRESET, and polls as POLLOUT and POLLERR only."""
        self.assert_errno(errno.ECONNRESET, self.make().connect, (LOCAL, next(_PORTS)))
        attempt = self.make()
        attempt.setblocking(False)
        self.assertEqual(attempt.connect_ex((LOCAL, next(_PORTS))), errno.EINPROGRESS)
        poll = select.poll()
        poll.register(attempt, select.POLLIN | select.POLLOUT)
        [(_, events)] = poll.poll(5000)
        self.assertEqual(events, select.POLLOUT | select.POLLERR)
        self.assertEqual(attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), errno.ECONNRESET)

    def test_unknown_cid(self) -> None:
        """A cid that no VM has is ENODEV, at once."""
        self.assert_errno(errno.ENODEV, self.make().connect, (16, 5000))

    def test_full_queue(self) -> None:
        """A full accept queue refuses at once with ECONNRESET, and nothing tries again."""
        _, port = self.listen(backlog=1)
        refused = 0
        for _ in range(8):
            attempt = self.make()
            result = attempt.connect_ex((LOCAL, port))
            self.assertIn(result, (0, errno.ECONNRESET))
            refused += result != 0
        self.assertGreater(refused, 0)

    def test_binding(self) -> None:
        """A foreign cid is EADDRNOTAVAIL; any:port and 1:port are EADDRINUSE for each other."""
        self.assert_errno(errno.EADDRNOTAVAIL, self.make().bind, (99, next(_PORTS)))
        for first, second in ((CID_ANY, LOCAL), (LOCAL, CID_ANY)):
            _, port = self.listen(first)
            self.assert_errno(errno.EADDRINUSE, self.make().bind, (second, port))

    def test_low_ports(self) -> None:
        """A port below 1024 needs a capability; 1024 does not."""
        with unprivileged():
            self.assert_errno(errno.EACCES, self.make().bind, (CID_ANY, 1023))
            self.make().bind((CID_ANY, 1024))

    def test_buffer(self) -> None:
        """A socket holds 256 KiB for a peer that does not read, and no more."""
        client, _ = self.pair()
        client.setblocking(False)
        held = 0
        with self.assertRaises(BlockingIOError):
            while True:
                held += client.send(bytes(LARGEST_SEND))
        self.assertEqual(held, 256 << 10)

    def test_inherited_listener(self) -> None:
        """A listening descriptor can be passed on: both holders accept from one queue."""
        listening, port = self.listen()
        other = socket.socket(fileno=os.dup(listening.fileno()))
        self.addCleanup(other.close)
        other.settimeout(5)
        for holder in (listening, other):
            self.make().connect((LOCAL, port))
            holder.accept()[0].close()

    def test_stock_adoption(self) -> None:
        """Twisted's own ways to adopt a descriptor refuse the family."""
        listening, _ = self.listen()
        for adopt in (reactor.adoptStreamPort, reactor.adoptStreamConnection):
            self.assertRaises(
                error.UnsupportedAddressFamily,
                adopt,
                listening.fileno(),
                socket.AF_VSOCK,
                Factory.forProtocol(Protocol),
            )


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while, without capabilities."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class FailureTests(VsockTestCase):
    """What a caller is told of each failure that the kernel has in store."""

    async def refused(self, connecting: Deferred[Any], kind: type[Exception], words: str) -> None:
        """It fails with that kind of error, in those words."""
        failure = await self.assertFailure(connecting, kind)
        self.assertIn(words, str(failure))

    async def test_connecting(self) -> None:
        """Nobody listens; there is no such VM."""
        await self.refused(self.connect(next(_PORTS)), error.ConnectionRefusedError, "nobody listens on that port")
        for cid in (16, 99):
            unknown = VsockClientEndpoint(reactor, cid, 5000).connect(Factory.forProtocol(Protocol))
            await self.refused(unknown, error.ConnectError, "no VM with this cid is running")

    async def test_full_queue(self) -> None:
        """The accept queue is full."""
        listening = vsock_socket()
        self.addCleanup(listening.close)
        port = next(_PORTS)
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
        """The port is taken; the cid is another machine's; the port needs a capability."""
        port = await self.listen()
        for cid, number, words in (
            (CID_ANY, port.getHost().port, "the port is taken"),
            (LOCAL, port.getHost().port, "the port is taken"),
            (99, next(_PORTS), "the cid is not this machine's own"),
        ):
            listening = VsockServerEndpoint(reactor, number, cid).listen(self.server)
            await self.refused(listening, error.CannotListenError, words)
        with unprivileged():
            listening = VsockServerEndpoint(reactor, 1023).listen(self.server)
        await self.refused(listening, error.CannotListenError, "ports below 1024 need CAP_NET_BIND_SERVICE")

    async def test_nothing_leaks(self) -> None:
        """Connections that come to nothing, are aborted or end in order leave no descriptor behind."""
        port = await self.listen()
        before = open_sockets()
        for _ in range(100):
            await self.assertFailure(self.connect(next(_PORTS)), error.ConnectionRefusedError)
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
    """Sends a pattern, and checks that what it receives is the same, byte for byte.

    The pattern's length is prime, so that no piece that is lost, repeated or swapped goes unseen.
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
        """Send until told to wait; at the end close this direction."""
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
        """All of it has been sent."""


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
        """Listens on a port that nobody has used."""
        return serverFromString(reactor, f"vsock:{next(_PORTS)}")

    def client(self, reactor: Any, serverAddress: Any) -> Any:
        """Connects to it."""
        return clientFromString(reactor, f"vsock:cid={LOCAL}:port={serverAddress.port}")


class Conformance(ReactorBuilder, ConnectionTestsMixin, StreamClientTestsMixin, AbortConnectionMixin):
    """What Twisted demands of its own stream transports."""

    endpoints = VsockCreator()
    timeout = 20
    port = 0

    def test_serverAbortsConnectionTwice(self) -> None:
        """A peer that aborts is told from one that closes on TCP; on vsock it is not."""
        self.runAbortTest(WritingButNotAbortingClient, ServerAbortsTwice, error.ConnectionDone)

    def test_serverAbortsConnectionThenLosesConnection(self) -> None:
        """The same, with an orderly close after the abort."""
        self.runAbortTest(WritingButNotAbortingClient, ServerAbortsThenLoses, error.ConnectionDone)

    def listen(self, reactor: Any, factory: Any) -> Any:
        """Listen."""
        self.port = next(_PORTS)
        ports: list[Any] = []
        VsockServerEndpoint(reactor, self.port).listen(factory).addCallback(ports.append)
        return ports[0]

    def connect(self, reactor: Any, factory: Any) -> Any:
        """Connect to where `listen` was told to."""
        connector = VsockConnector(LOCAL, self.port, factory, 30, reactor)
        connector.connect()
        return connector


class EpollConformanceTests(Conformance, SynchronousTestCase):
    """On the reactor that the daemons use."""

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
