"""Transports with fewer system calls, on real sockets: `nitroproxy.sockets.quick`. That they still do all that Twisted
demands of its transports is tested with the reactor that makes them (`tests/test_daemon_reactor.py`)."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Callable
from typing import Any, ClassVar

from twisted.internet import tcp, unix
from twisted.internet.error import ConnectionDone, ConnectionRefusedError, TCPTimedOutError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.daemon.reactor import EagerReactor
from nitroproxy.sockets.quick import TCPClient, TCPServer, UNIXServer, accept_quickly, holds_nothing

_LIMIT = 20


class Calls:
    """A socket that remembers what it is asked for, and does it."""

    def __init__(self, inner: socket.socket) -> None:
        self.inner = inner
        self.made: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.made.append(name)
        return getattr(self.inner, name)


class Remember(Protocol):
    """Calls back what happens to it."""

    transport: Any

    def __init__(self, on_data: Callable[[Remember], object], on_end: Callable[[Failure], object]) -> None:
        self.data = b""
        self._on_data = on_data
        self._on_end = on_end

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._on_data(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._on_end(reason)


class Dial(ClientFactory):
    """Makes one protocol, and calls back when there is no connection."""

    noisy = False

    def __init__(self, protocol: Protocol, on_failure: Callable[[Failure], object]) -> None:
        self._protocol = protocol
        self._on_failure = on_failure

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._on_failure(reason)


class ClientTests(ReactorBuilder, SynchronousTestCase):
    """What is dialled."""

    reactorFactory = EagerReactor

    def setUp(self) -> None:
        self.reactor: Any = self.buildReactor()
        self.failures: list[Failure] = []

    def ended(self, reason: Any = None) -> Any:
        self.failures.append(reason)
        self.reactor.stop()

    def dial(self, port: int, on_data: Callable[[Remember], object] = lambda protocol: None) -> Remember:
        protocol = Remember(on_data, self.ended)
        self.connector = self.reactor.connectTCP("127.0.0.1", port, Dial(protocol, self.ended))
        return protocol

    def test_one_connect(self) -> None:
        """There is one connect(), made at once; data goes both ways, and the socket is closed without a shutdown."""
        calls: list[Calls] = []

        class Counting(socket.socket):
            connects: ClassVar[list[object]] = []

            def connect_ex(self, address: Any) -> int:
                self.connects.append(address)
                return super().connect_ex(address)

        with socket.create_server(("127.0.0.1", 0)) as server:
            self.patch(TCPClient, "createInternetSocket", lambda self: nonblocking(Counting()))
            protocol = self.dial(server.getsockname()[1], lambda it: it.transport.loseConnection())
            self.assertEqual(len(Counting.connects), 1)
            peer, _ = server.accept()
            with peer:
                protocol_said: list[bytes] = []
                self.reactor.callLater(0, lambda: peer.sendall(b"hello"))

                def spy() -> None:
                    transport = protocol.transport
                    calls.append(Calls(transport.socket))
                    transport.socket = calls[0]
                    transport.write(b"from here")

                protocol.connectionMade = spy  # type: ignore[method-assign]
                self.runReactor(self.reactor, _LIMIT)
                protocol_said.append(peer.recv(100))
                self.assertEqual(peer.recv(100), b"")
        self.assertEqual((protocol.data, protocol_said, len(Counting.connects)), (b"hello", [b"from here"], 1))
        self.assertIn("close", calls[0].made)
        self.assertNotIn("shutdown", calls[0].made)
        self.assertTrue(self.failures[0].check(ConnectionDone))

    def test_refused(self) -> None:
        """A refusal is reported as one, once, and nothing stays open."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            before = len(os.listdir("/proc/self/fd"))
            self.dial(bound.getsockname()[1])
            self.runReactor(self.reactor, _LIMIT)
            self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual([failure.type for failure in self.failures], [ConnectionRefusedError])

    def test_fails_at_once(self) -> None:
        """An attempt that the kernel refuses in connect() is reported a turn later, when its maker knows of it."""
        self.patch(TCPClient, "createInternetSocket", lambda self: Unroutable())
        self.dial(443)
        self.assertEqual(self.failures, [])
        self.runReactor(self.reactor, _LIMIT)
        self.assertEqual([failure.type for failure in self.failures], [TCPTimedOutError])

    def test_stopped(self) -> None:
        """An attempt that is given up is over, whatever comes of it."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.dial(server.getsockname()[1])
            self.reactor.callWhenRunning(self.connector.stopConnecting)
            self.runReactor(self.reactor, _LIMIT)
        self.assertEqual(len(self.failures), 1)
        left = [*self.reactor.getReaders(), *self.reactor.getWriters()]
        self.assertEqual([one for one in left if isinstance(one, TCPClient)], [])


def nonblocking(made: socket.socket) -> socket.socket:
    made.setblocking(False)
    return made


class Unroutable(socket.socket):
    """A socket without a way to anywhere."""

    def connect_ex(self, address: Any) -> int:
        return 110  # ETIMEDOUT: any errno but EINPROGRESS


class ServerTests(ReactorBuilder, SynchronousTestCase):
    """What is accepted."""

    reactorFactory = EagerReactor

    def test_which(self) -> None:
        """Ports of TCP and UNIX sockets make such transports; others are left alone."""

        class Other(tcp.Port):
            transport: Any = object

        for port, transport in ((tcp.Port, TCPServer), (unix.Port, UNIXServer), (Other, object)):
            made: Any = port("/x" if port is unix.Port else 0, Factory())  # type: ignore[arg-type]
            accept_quickly(made)
            self.assertIs(made.transport, transport)

    def test_no_descriptors(self) -> None:
        """A peer of a UNIX socket cannot put descriptors into this process; its bytes arrive."""
        reactor: Any = self.buildReactor()
        path = f"/tmp/{os.urandom(8).hex()}.sock"
        counts: list[int] = []

        def count() -> None:
            counts.append(len(os.listdir("/proc/self/fd")))

        def arrived(protocol: Remember) -> None:
            count()
            reactor.stop()

        protocol = Remember(arrived, lambda reason: None)
        protocol.connectionMade = count  # type: ignore[method-assign]
        port = reactor.listenUNIX(path, Factory.forProtocol(lambda: protocol))
        accept_quickly(port)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
            self.runReactor(reactor, _LIMIT)
        self.assertEqual(protocol.data, b"x")
        self.assertEqual(counts[1], counts[0])

    def test_nothing_to_send(self) -> None:
        """Nothing is sent when there is nothing to send, and what is written has left once it is."""
        reactor: Any = self.buildReactor()
        mine, peer = socket.socketpair()
        with peer:
            server = UNIXServer(mine, Protocol(), "", None, 0, reactor)
            self.addCleanup(server.connectionLost, Failure(ConnectionDone()))
            calls: Any = Calls(mine)
            server.socket = calls
            self.assertTrue(holds_nothing(server))
            self.assertEqual(server.writeSomeData(b""), 0)
            self.assertEqual(calls.made, [])
            server.write(b"abc")
            self.assertFalse(holds_nothing(server))
            server.doWrite()
            self.assertTrue(holds_nothing(server))
            self.assertEqual((calls.made, peer.recv(10)), (["send"], b"abc"))
