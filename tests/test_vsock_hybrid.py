"""vsock as Firecracker offers it to the host: the question, the answer, and the guest's bytes after it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionRefusedError, TimeoutError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from nitroproxy.vsock.hybrid import HybridClientEndpoint


class Kept(Protocol):
    """Remembers what happened to it."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def connectionMade(self) -> None:
        """See `Protocol`."""
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        """See `Protocol`."""
        self.events.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See `Protocol`."""
        self.events.append(reason.type)


class HybridTests(SynchronousTestCase):
    """`HybridClientEndpoint`, with a connection in memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        endpoint = HybridClientEndpoint(self.reactor, "/run/vm/vsock.sock", 5000, timeout=3)
        self.connecting = endpoint.connect(Factory.forProtocol(Kept))
        path, factory, *_ = self.reactor.unixClients[0]
        self.assertEqual(path, "/run/vm/vsock.sock")
        transport: Any = StringTransport()
        self.transport = transport
        self.transport.protocol = factory.buildProtocol(UNIXAddress(path))
        self.transport.protocol.makeConnection(self.transport)

    def test_asked(self) -> None:
        """The port is asked for, nothing else is sent, and there is no protocol until the answer is there."""
        self.assertEqual(self.transport.value(), b"CONNECT 5000\n")
        self.transport.protocol.dataReceived(b"OK 12")
        self.assertNoResult(self.connecting)

    def test_answered(self) -> None:
        """After the answer the connection is the protocol's, with what the guest sent in the same segment."""
        self.transport.protocol.dataReceived(b"OK 1073741824\nHTTP/1.1")
        protocol: Any = self.successResultOf(self.connecting)
        self.assertEqual(protocol.events, ["made", b"HTTP/1.1"])
        self.assertIs(self.transport.protocol, protocol)
        self.transport.protocol.dataReceived(b" 200")
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(protocol.events[2:], [b" 200", ConnectionDone])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_byte_by_byte(self) -> None:
        """However the answer is cut, it is the same."""
        for byte in b"OK 7\nx":
            self.transport.protocol.dataReceived(bytes([byte]))
        protocol: Any = self.successResultOf(self.connecting)
        self.assertEqual(protocol.events, ["made", b"x"])

    def test_refused(self) -> None:
        """The end of the connection before an answer means that nothing listens."""
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))
        failure = self.failureResultOf(self.connecting, ConnectionRefusedError)
        self.assertIn("nothing listens on port 5000 of the guest", str(failure.value))

    def test_other_answers(self) -> None:
        """Another answer, one without an end, and a number that is none fail the attempt and end the connection."""
        for answer in (b"ERR\n", b"OK\n", b"OK x\n", b"OK 12345678901\n", b"\n", b"x" * 33):
            self.setUp()
            self.transport.protocol.dataReceived(answer)
            self.failureResultOf(self.connecting, ConnectError)
            self.assertTrue(self.transport.disconnecting or self.transport.disconnected, answer)
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_silence(self) -> None:
        """A guest that does not answer is given up after the timeout."""
        self.reactor.advance(3)
        self.failureResultOf(self.connecting, TimeoutError)

    def test_cancelled(self) -> None:
        """Cancelled while the answer is awaited, the connection ends and no timer is left."""
        self.connecting.cancel()
        self.failureResultOf(self.connecting)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))


class PlayedVM(LineReceiver):
    """Firecracker's end: it answers, and echoes from then on."""

    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        """See `LineReceiver`."""
        self.setRawMode()
        self.sendLine(b"OK 1" if line == b"CONNECT 5000" else b"")

    def rawDataReceived(self, data: bytes) -> None:
        """See `LineReceiver`."""
        assert self.transport is not None
        self.transport.write(data)
        self.transport.loseConnection()


class RealTests(TestCase):
    """The same over real UNIX sockets."""

    async def test_round_trip(self) -> None:
        """What is sent comes back, and the end of the connection is the protocol's."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = str(Path(directory.name) / "vsock.sock")
        port = await UNIXServerEndpoint(reactor, path).listen(Factory.forProtocol(PlayedVM))
        self.addCleanup(port.stopListening)
        protocol: Any = await HybridClientEndpoint(reactor, path, 5000).connect(Factory.forProtocol(Kept))
        lost: Deferred[object] = Deferred()
        protocol.connectionLost = lambda reason: lost.callback(None)
        protocol.transport.write(b"echo")
        await lost
        self.assertEqual(protocol.events, ["made", b"echo"])

    async def test_no_vm(self) -> None:
        """Without a VM the attempt fails as any UNIX socket's does."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        endpoint = HybridClientEndpoint(reactor, str(Path(directory.name) / "missing"), 5000)
        with self.assertRaises(ConnectError):
            await endpoint.connect(Factory.forProtocol(Kept))
