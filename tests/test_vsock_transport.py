"""How AF_VSOCK differs from TCP, each difference on fake sockets. On real ones where NITROPROXY_TEST_VSOCK is set, as
in a guest with a vsock of its own."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet import error
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import ClientContextFactory, PrivateCertificate
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

import nitroproxy.vsock.transport
from nitroproxy.demo.certificates import ThrowAwayAuthority
from nitroproxy.vsock.address import CID_ANY, VsockAddress
from nitroproxy.vsock.endpoints import VsockClientEndpoint, VsockServerEndpoint
from nitroproxy.vsock.transport import LARGEST_SEND
from tests.fakevsock import GUEST, FakeKernel

reactor: Any = global_reactor
#: In a guest with real vsock, cid 1 is the machine itself.
REAL = bool(os.environ.get("NITROPROXY_TEST_VSOCK"))


@implementer(IHalfCloseableProtocol)
class Remember(Protocol):
    """Records everything that happens."""

    transport: Any

    def __init__(self, made: Deferred[Remember] | None = None) -> None:
        self._made = made
        self.received = bytearray()
        self.read_ended: Deferred[None] = Deferred()
        self.lost: Deferred[list[Failure]] = Deferred()
        self._wanted: tuple[int, Deferred[None]] | None = None

    def connectionMade(self) -> None:
        if self._made is not None:
            self._made.callback(self)

    def expect(self, count: int) -> Deferred[None]:
        """Fires when *count* bytes have arrived in all."""
        done: Deferred[None] = Deferred()
        self._wanted = (count, done)
        self._check()
        return done

    def _check(self) -> None:
        if self._wanted is not None and len(self.received) >= self._wanted[0]:
            (_, done), self._wanted = self._wanted, None
            done.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._check()

    def readConnectionLost(self) -> None:
        self.read_ended.callback(None)

    def writeConnectionLost(self) -> None:
        """Nothing to note."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback([reason])


class Accepting(Factory):
    """Gives the protocol of the next accepted connection."""

    noisy = False

    def __init__(self) -> None:
        self.peers: list[Any] = []
        self.accepted: Deferred[Remember] = Deferred()

    def buildProtocol(self, addr: Any) -> Any:
        self.peers.append(addr)
        made, self.accepted = self.accepted, Deferred()
        return Remember(made)


class VsockTestCase(TestCase):
    """A listening vsock port, and connections to it."""

    timeout = 10

    def setUp(self) -> None:
        self.kernel: FakeKernel | None = None
        if not REAL:
            self.kernel = FakeKernel()
            self.patch(nitroproxy.vsock.transport, "vsock_socket", self.kernel.socket)
        self.server = Accepting()

    def fake(self) -> FakeKernel:
        """The fake kernel, for its special behaviour."""
        if self.kernel is None:
            self.skipTest("a real kernel cannot be told to fail")
        return self.kernel

    async def listen(self, factory: Any = None) -> Any:
        port: Any = await VsockServerEndpoint(reactor, self.free_port()).listen(factory or self.server)
        self.addCleanup(port.stopListening)
        return port

    def free_port(self) -> int:
        return 50000 + os.getpid() % 10000 if REAL else 0

    def connect(self, port: int) -> Deferred[Any]:
        factory = Factory.forProtocol(Remember)
        factory.noisy = False
        return VsockClientEndpoint(reactor, 1, port).connect(factory)

    async def pair(self) -> tuple[Remember, Remember]:
        """A connection: the client's protocol and the server's."""
        port = await self.listen()
        accepted = self.server.accepted
        client = await self.connect(port.getHost().port)
        return client, await accepted


class ConnectionTests(VsockTestCase):
    """Connections that are made."""

    async def test_addresses(self) -> None:
        """Both ends name themselves and each other as vsock addresses; the factory receives the peer's cid."""
        port = await self.listen()
        self.assertEqual(port.getHost().cid, CID_ANY)
        accepted = self.server.accepted
        client = await self.connect(port.getHost().port)
        server = await accepted
        self.assertEqual(client.transport.getPeer(), VsockAddress(1, port.getHost().port))
        self.assertIsInstance(client.transport.getHost(), VsockAddress)
        self.assertEqual(server.transport.getPeer(), self.server.peers[0])
        self.assertIsInstance(self.server.peers[0], VsockAddress)
        if not REAL:
            self.assertEqual(self.server.peers[0].cid, GUEST)
        client.transport.loseConnection()
        await client.lost
        await server.read_ended
        server.transport.loseConnection()
        await server.lost

    async def test_writes_are_capped(self) -> None:
        """No send is larger than 31 KiB, however much is written at once, and all of it arrives."""
        client, server = await self.pair()
        data = os.urandom(1 << 20)
        client.transport.write(data)
        client.transport.writeSequence([data] * 7)
        client.transport.loseConnection()
        await server.read_ended
        self.assertEqual(bytes(server.received), data * 8)
        if self.kernel is not None:
            self.assertEqual(max(size for made in self.kernel.made for size in made.sent), LARGEST_SEND)
        server.transport.loseConnection()
        await server.lost
        [reason] = await client.lost
        self.assertIs(reason.type, error.ConnectionDone)

    async def test_half_close(self) -> None:
        """One direction can end while the other continues."""
        client, server = await self.pair()
        client.transport.write(b"question")
        client.transport.loseWriteConnection()
        await server.read_ended
        self.assertEqual(bytes(server.received), b"question")
        server.transport.write(b"answer")
        server.transport.loseConnection()
        await client.read_ended
        self.assertEqual(bytes(client.received), b"answer")
        client.transport.loseConnection()
        await client.lost
        await server.lost

    async def test_abort(self) -> None:
        """abortConnection closes the socket and reports it: the stock one fails on SO_LINGER and leaks it."""
        client, server = await self.pair()
        descriptor = client.transport.fileno()
        client.transport.abortConnection()
        [reason] = await client.lost
        self.assertIs(reason.type, error.ConnectionAborted)
        self.assertRaises(OSError, os.fstat, descriptor)
        await server.read_ended
        server.transport.loseConnection()
        await server.lost

    async def test_last_words_are_read(self) -> None:
        """The bytes that the peer sent before it closed are read, although our write to it fails with EPIPE."""
        client, server = await self.pair()
        client.transport.pauseProducing()
        server.transport.write(b"last words")
        server.transport.loseConnection()
        await server.lost
        client.transport.write(b"too late")
        await deferLater(reactor, 0.01, lambda: None)
        self.assertFalse(client.lost.called)
        client.transport.resumeProducing()
        await client.read_ended
        self.assertEqual(bytes(client.received), b"last words")
        client.transport.loseConnection()
        await client.lost

    async def test_empty_write(self) -> None:
        """An empty send does nothing: its EPIPE on vsock would turn every orderly end of TLS into a loss."""
        client, server = await self.pair()
        self.assertEqual(client.transport.writeSomeData(b""), 0)
        server.transport.loseConnection()
        await server.lost
        await client.read_ended
        self.assertEqual(client.transport.writeSomeData(b""), 0)
        client.transport.abortConnection()
        await client.lost

    async def test_tcp_options(self) -> None:
        """TCP's options, which twisted.web sets, are accepted and do nothing."""
        client, server = await self.pair()
        client.transport.setTcpNoDelay(True)
        client.transport.setTcpKeepAlive(True)
        self.assertEqual((client.transport.getTcpNoDelay(), client.transport.getTcpKeepAlive()), (False, False))
        for side in (client, server):
            side.transport.abortConnection()
            await side.lost

    async def test_tls(self) -> None:
        """TLS over vsock ends in order: with ConnectionDone on both sides."""
        identity = PrivateCertificate.loadPEM(ThrowAwayAuthority().issue().pem)
        port = await self.listen(TLSMemoryBIOFactory(identity.options(), False, self.server))
        accepted = self.server.accepted
        factory = TLSMemoryBIOFactory(ClientContextFactory(), True, Factory.forProtocol(Remember))
        outer: Any = await VsockClientEndpoint(reactor, 1, port.getHost().port).connect(factory)
        client, server = outer.wrappedProtocol, await accepted
        client.transport.write(b"x" * 100000)
        await server.expect(100000)
        server.transport.write(b"y")
        await client.expect(1)
        client.transport.loseConnection()
        for side in (client, server):
            [reason] = await side.lost
            self.assertIs(reason.type, error.ConnectionDone)


class ConnectFailureTests(VsockTestCase):
    """Connections that fail."""

    async def refused(self, kind: type[Exception], *words: str, port: int = 999) -> None:
        failure = await self.assertFailure(self.connect(port), kind)
        for word in words:
            self.assertIn(word, str(failure))

    async def test_nobody_listens(self) -> None:
        """ECONNRESET is how vsock refuses: it is ConnectionRefusedError, and says what it can mean."""
        await self.refused(error.ConnectionRefusedError, "no listener", "accept queue is full")

    async def test_immediate(self) -> None:
        """Each errno of connect() is reported with its meaning, as Twisted's errors."""
        kernel = self.fake()
        for number, kind, word in (
            (errno.ENODEV, error.ConnectError, "no VM with this cid"),
            (errno.ENETUNREACH, error.ConnectError, "no such cid"),
            (errno.ETIMEDOUT, error.TCPTimedOutError, "does not answer"),
            (errno.ECONNRESET, error.ConnectionRefusedError, "no listener"),
        ):
            kernel.fail_connect = number
            await self.refused(kind, word)

    async def test_refusal_in_the_poll(self) -> None:
        """A refusal that polls as POLLOUT and POLLERR, without POLLHUP, is found in SO_ERROR."""
        kernel = self.fake()
        kernel.fail_later = errno.ECONNRESET
        await self.refused(error.ConnectionRefusedError, "no listener")
        kernel.fail_later = errno.ETIMEDOUT
        await self.refused(error.TCPTimedOutError, "does not answer")

    async def test_no_such_family(self) -> None:
        """Where sockets of the family are not allowed, connecting fails with the likely reason."""
        self.fake()

        def refuse() -> None:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

        self.patch(nitroproxy.vsock.transport, "vsock_socket", refuse)
        await self.refused(error.ConnectError, "RestrictAddressFamilies")
        await self.assertFailure(VsockServerEndpoint(reactor, 5000).listen(self.server), error.CannotListenError)


class ListenFailureTests(VsockTestCase):
    """Ports that cannot be bound."""

    async def test_reasons(self) -> None:
        """Each errno of bind() is reported with its meaning."""
        kernel = self.fake()
        for number, word in (
            (errno.EADDRINUSE, "the port is taken"),
            (errno.EADDRNOTAVAIL, "not this machine's own"),
            (errno.EACCES, "CAP_NET_BIND_SERVICE"),
        ):
            kernel.fail_bind = number
            failure = await self.assertFailure(
                VsockServerEndpoint(reactor, 5000).listen(self.server), error.CannotListenError
            )
            self.assertIn(word, str(failure))

    async def test_taken(self) -> None:
        """A port can be bound once, and again after it has been released."""
        port = await self.listen()
        number = port.getHost().port
        await self.assertFailure(VsockServerEndpoint(reactor, number).listen(self.server), error.CannotListenError)
