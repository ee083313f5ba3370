"""Connections from outside to an application in the enclave, through both daemons and real sockets."""

from __future__ import annotations

import hashlib
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.preface.proxy_protocol import Header, HeaderReader, Peers
from tests.chain import ChainCase
from tests.ports import free_port

reactor: Any = global_reactor


@implementer(IHalfCloseableProtocol)
class End(Protocol):
    """One end of a connection: collects what comes.

    :ivar ended: fires at the end of input; *lost* with why the connection is gone.
    """

    def __init__(self) -> None:
        self.received = b""
        self.ended: Deferred[bytes] = Deferred()
        self.lost: Deferred[object] = Deferred()
        self._awaited: tuple[int, Deferred[None]] | None = None

    def until(self, size: int) -> Deferred[None]:
        """Fires when so many bytes have come."""
        waiting: Deferred[None] = Deferred()
        self._awaited = size, waiting
        self.dataReceived(b"")
        return waiting

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self._awaited is not None and len(self.received) >= self._awaited[0]:
            (_, waiting), self._awaited = self._awaited, None
            waiting.callback(None)

    def readConnectionLost(self) -> None:
        self.ended.callback(self.received)

    def writeConnectionLost(self) -> None:
        """Our own end."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ended.called:
            self.ended.callback(self.received)
        self.lost.callback(reason.value)

    @property
    def wire(self) -> Any:
        """The transport."""
        return self.transport


class Application(Factory):
    """The application in the enclave: hands out its connections as they come."""

    noisy = False

    def __init__(self) -> None:
        self.accepted: list[End] = []
        self._waiting: list[Deferred[End]] = []

    def buildProtocol(self, addr: object) -> End:
        end = End()
        self.accepted.append(end)
        if self._waiting:
            reactor.callLater(0, self._waiting.pop(0).callback, end)
        return end

    def next(self) -> Deferred[End]:
        """The next connection."""
        waiting: Deferred[End] = Deferred()
        self._waiting.append(waiting)
        return waiting


class IngressCase(ChainCase):
    """Both daemons with one forward, and an application behind it.

    :ivar outside: where the host listens; *inside* where the application does.
    """

    tapped = False
    proxy_protocol: str | None = None

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits what it returns
        self.outside, self.inside = free_port(), free_port()
        await super().setUp()
        self.application = Application()
        self.listening: Any = None

    def listen(self) -> None:
        """The application listens."""
        self.listening = reactor.listenTCP(self.inside, self.application, interface="127.0.0.1")
        self.addCleanup(self.listening.stopListening)

    def configure(self, role: str, **more: object) -> str:
        forward = {"listen": f"127.0.0.1:{self.outside}", "vsock": 5444, "to": self.inside}
        return super().configure(
            role, **{"ingress__forwards": [forward | {"proxy_protocol": self.proxy_protocol}], **more}
        )

    async def connect(self) -> End:
        """A client's connection."""
        client: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", self.outside).connect(Factory.forProtocol(End))
        self.addCleanup(client.wire.abortConnection)
        return client  # type: ignore[no-any-return]

    async def both(self) -> tuple[End, End]:
        """A client's connection and the application's end of it."""
        accepted = self.application.next()
        client = await self.connect()
        return client, await accepted


class IngressTests(IngressCase):
    """Bytes."""

    async def test_both_ways(self) -> None:
        """A megabyte each way, then half-closes, arrive whole."""
        self.listen()
        client, application = await self.both()
        data = bytes(range(256)) * 4096
        client.wire.write(data)
        client.wire.loseWriteConnection()
        received = await application.ended
        application.wire.write(hashlib.sha256(received).digest() + data)
        application.wire.loseConnection()
        self.assertEqual(await client.ended, hashlib.sha256(data).digest() + data)

    async def test_application_first(self) -> None:
        """The application may speak first."""
        self.listen()
        client, application = await self.both()
        application.wire.write(b"220 ready")
        await client.until(9)
        self.assertEqual(client.received, b"220 ready")

    async def test_resets(self) -> None:
        """Whichever end resets its connection, the other's ends: between the daemons a reset reads as an end."""
        self.listen()
        client, application = await self.both()
        client.wire.abortConnection()
        await application.ended
        client, application = await self.both()
        application.wire.abortConnection()
        await client.ended

    async def test_nobody_listens(self) -> None:
        """Without an application a client's connection ends without a byte; health and the log say why, until it
        listens."""
        events = self.events()
        client = await self.connect()
        self.assertEqual(await client.ended, b"")
        code, checks = await self.health()
        self.assertEqual((code, checks["ingress"][0]["status"]), (503, "fail"))
        self.assertIn(f"127.0.0.1:{self.inside}", checks["ingress"][0]["output"])
        [access] = [event for event in events if event.get("error") == "connection_refused"]
        self.assertEqual((access["hop"], access["method"], access["port"]), ("nitroproxy-ingress", "TCP", self.inside))
        self.listen()
        code, checks = await self.health()
        self.assertEqual((code, checks["ingress"][0]["status"]), (200, "pass"))

    async def test_no_enclave(self) -> None:
        """While the enclave is away a client's connection is reset, and works again when it is back."""
        self.listen()
        await self.stop("enclave")
        client = await self.connect()
        self.assertNotIsInstance(await client.lost, ConnectionDone)
        self.start("enclave")
        client, application = await self.both()
        client.wire.write(b"hello")
        await application.until(5)

    async def test_other_configuration(self) -> None:
        """An enclave without forwards is found out by health."""
        await self.stop("enclave")
        self.start("enclave", ingress__forwards=[])
        code, checks = await self.health()
        self.assertEqual(code, 503)
        self.assertIn("no ingress.forwards", checks["ingress"][0]["output"])

    async def test_slow_reader(self) -> None:
        """A client that does not read stops the application, and nothing is lost."""
        self.listen()
        client, application = await self.both()
        client.wire.pauseProducing()
        data = bytes(1 << 20) * 24
        application.wire.write(data)
        application.wire.loseConnection()
        await self.until(True, self.stalled)
        client.wire.resumeProducing()
        await client.ended
        self.assertEqual(len(client.received), len(data))

    async def stalled(self) -> bool:
        """The application's data waits in its own transport."""
        waiting: int = len(self.application.accepted[-1].wire.dataBuffer)
        return waiting < 24 << 20

    async def test_reload(self) -> None:
        """A reload changes limits; a changed forward needs a restart, and the log names it."""
        self.listen()
        events = self.events()
        self.assertTrue(self.reload("host", ingress__forwards=[], limits__connections=1))
        [partial] = [event for event in events if event.get("event") == "reload_partial"]
        self.assertEqual(partial["ignored"], "ingress.forwards")
        await self.both()
        refused = await self.connect()
        await refused.lost

    async def test_drain(self) -> None:
        """A daemon that stops lets a connection in use finish and accepts no more."""
        self.listen()
        self.reload("host", limits__drain_timeout=20.0)
        client, application = await self.both()
        stopping = Deferred.fromCoroutine(self.stop("host"))
        application.wire.write(b"still ")
        await client.until(6)
        application.wire.write(b"here")
        application.wire.loseConnection()
        self.assertEqual(await client.ended, b"still here")
        await stopping


def accesses(events: list[Any]) -> list[Any]:
    """The connections from outside that have been logged."""
    return [event for event in events if event.get("event") == "access" and event["hop"] == "nitroproxy-ingress"]


class HeaderTests(IngressCase):
    """With a load balancer before the host and an application that wants to know the client."""

    proxy_protocol = "both"

    async def test_client(self) -> None:
        """The application learns the client's address in version 2, and both hops log it under one id."""
        self.listen()
        events = self.events()
        accepted = self.application.next()
        client = await self.connect()
        client.wire.write(b"PROXY TCP4 203.0.113.9 198.51.100.2 999 443\r\nhello")
        client.wire.loseWriteConnection()
        application = await accepted
        reader = HeaderReader()
        reader.feed(await application.ended)
        header = reader.read()
        assert isinstance(header, Header)
        self.assertEqual(header.peers, Peers(("203.0.113.9", 999), ("198.51.100.2", 443)))
        self.assertEqual(reader.take_rest(), b"hello")
        application.wire.loseConnection()
        await client.ended
        await self.until(True, lambda: self.logged(events))
        told = {(event["peer"], event["request_id"]) for event in accesses(events)}
        self.assertEqual(told, {("203.0.113.9:999", header.unique_id.decode())})

    @staticmethod
    async def logged(events: list[Any]) -> bool:
        """Both hops have logged the connection's end."""
        return len(accesses(events)) >= 2

    async def test_missing(self) -> None:
        """Without a header nothing reaches the application."""
        self.listen()
        client = await self.connect()
        client.wire.write(b"\x16\x03\x01")
        await client.lost
        self.assertEqual(self.application.accepted, [])


class SentTests(IngressCase):
    """An application that wants to know the client, without a load balancer."""

    proxy_protocol = "send"

    async def test_client(self) -> None:
        """It learns both ends of the client's connection."""
        self.listen()
        client, application = await self.both()
        await application.until(16)
        reader = HeaderReader()
        reader.feed(application.received)
        header = reader.read()
        assert isinstance(header, Header) and header.peers is not None
        self.assertEqual(header.peers.source, ("127.0.0.1", client.wire.getHost().port))
        self.assertEqual(header.peers.destination, ("127.0.0.1", self.outside))
