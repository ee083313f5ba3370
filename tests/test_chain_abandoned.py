"""Requests whose client has left: they end on every hop, by whichever kind of end each hop sees."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol

from tests.chain import ChainCase, Gathering, Upstream, reactor

NOTHING = {"host": 0, "enclave": 0, "relay": 0}


class Silent(Upstream):
    """Counts the requests that it does not answer, including those whose clients leave."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def render_GET(self, request: Any) -> bytes | int:
        """See `Upstream`."""
        self.asked += 1
        return super().render_GET(request)


class Mute(Protocol):
    """A destination that sends nothing, reads nothing after the first bytes and never closes its connections.

    :ivar made: fires with the protocol of the first connection.
    """

    def __init__(self, made: Deferred[Any]) -> None:
        self._made = made

    def connectionMade(self) -> None:
        self._made.callback(self)

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.pauseProducing()


class AbandonedTests(ChainCase):
    """A client sends a request and leaves."""

    timeout = 30
    tapped = False

    def resource(self) -> Any:
        """The destination."""
        return Silent()

    def client(self, request: bytes, port: int | None = None) -> socket.socket:
        """A client that has sent *request*."""
        client = socket.create_connection(("127.0.0.1", port or self.port))
        self.addCleanup(client.close)
        client.sendall(request)
        return client

    def get(self, path: str) -> bytes:
        """A request in path form."""
        return f"GET /https://localhost:{self.upstream.getHost().port}{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()

    @staticmethod
    def reset(client: socket.socket) -> None:
        """Leave with a reset."""
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

    async def asked(self) -> int:
        """How many requests the destination has."""
        return self.upstream_resource.asked  # type: ignore[no-any-return]

    async def test_reset(self) -> None:
        """Requests that wait for an answer end on all hops when their clients reset, through gateway and loopback."""
        clients = [self.client(self.get("/silent"), port) for port in (self.port, self.loopback) for _ in range(5)]
        await self.until(10, self.asked)
        for client in clients:
            self.reset(client)
        await self.until(NOTHING, self.in_flight)

    async def test_reset_at_once(self) -> None:
        """So do requests whose clients leave before there is a connection to the destination."""
        for _ in range(10):
            self.reset(self.client(self.get("/silent")))
        await self.until(NOTHING, self.in_flight)

    async def test_close(self) -> None:
        """A client that closes in order looks like one that has half-closed; it is detected all the same."""
        clients = [self.client(self.get("/silent"), port) for port in (self.port, self.loopback)]
        await self.until(2, self.asked)
        for client in clients:
            client.close()
        await self.until(NOTHING, self.in_flight)

    async def test_half_close(self) -> None:
        """A client that has half-closed and still reads gets its answer."""
        for port in (self.port, self.loopback):
            client: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(Factory.forProtocol(Gathering))
            client.transport.write(self.get("/hello"))
            client.transport.loseWriteConnection()
            await client.until(b"hello ")

    def mute(self) -> tuple[int, Deferred[Any]]:
        """A destination without TLS that sends nothing: its port, and a Deferred that fires when a client connects."""
        made: Deferred[Any] = Deferred()
        listening = reactor.listenTCP(0, Factory.forProtocol(lambda: Mute(made)), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        made.addCallback(lambda protocol: self.addCleanup(protocol.transport.abortConnection))
        return listening.getHost().port, made

    async def test_upload(self) -> None:
        """A client that leaves while its upload is held back is noticed on both hops, although neither reads."""
        await self.stop("host")
        await self.stop("enclave")
        self.start("host", tls__allow_plaintext=True)
        self.start("enclave", tls__allow_plaintext=True)
        port, made = self.mute()
        head = f"POST /http://localhost:{port}/ HTTP/1.1\r\nHost: a\r\nContent-Length: {1 << 30}\r\n\r\n"
        client = self.client(head.encode())
        await made
        client.setblocking(False)

        async def stuck() -> bool:
            try:
                client.send(bytes(1 << 20))
            except BlockingIOError:
                return True
            return False

        await self.until(True, stuck)
        self.reset(client)
        await self.until(NOTHING, self.in_flight)

    async def test_tunnel(self) -> None:
        """A tunnel ends when its client leaves, even if the destination keeps its end open."""
        for leave in (self.reset, socket.socket.close):
            port, made = self.mute()
            client = self.client(f"CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode())
            await made
            leave(client)
            await self.until(NOTHING, self.in_flight)
