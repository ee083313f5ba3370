"""A TLS server and a client of `nitroproxy.tls.client` on real connections, for the tests of `nitroproxy.tls`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions, PrivateCertificate, TLSVersion
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from nitroproxy.demo.certificates import ServerIdentity, ThrowAwayAuthority
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.tls.client import TLSClient
from nitroproxy.tls.settings import TLSSettings
from tests.wire import Maker

reactor: Any = global_reactor


class ServerSide(Protocol):
    """What the server sees of one connection."""

    def __init__(self, server: Server) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()
        self._server = server

    def connectionMade(self) -> None:
        self._server.connections.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        assert self.transport is not None
        self.transport.write(b"answer to " + data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


class Server(Factory):
    """A TLS server on loopback."""

    noisy = False

    def __init__(self) -> None:
        self.connections: list[ServerSide] = []
        self.names: list[bytes | None] = []

    def buildProtocol(self, addr: object) -> ServerSide:
        return ServerSide(self)


class ClientSide(Protocol):
    """An application's protocol: speaks as soon as it is made, as the proxy does."""

    def __init__(self) -> None:
        self.received = b""
        self.answered: Deferred[bytes] = Deferred()
        # In a list: a Deferred would take the Failure for its own.
        self.lost: Deferred[list[Failure]] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"secret")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if not self.answered.called:
            self.answered.callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback([reason])


class TLSCase(TestCase):
    """A client and a server."""

    timeout = 30

    def setUp(self) -> None:
        self.authority = ThrowAwayAuthority()
        self.ca_file = Path(self.mktemp())
        self.ca_file.write_bytes(self.authority.pem)
        self.server = Server()

    def serve(self, identity: ServerIdentity, **options: Any) -> Any:
        """Listen with *identity*; returns the port."""
        certificate = PrivateCertificate.loadPEM(identity.pem)
        if not options:
            options = {"insecurelyLowerMinimumTo": TLSVersion.TLSv1_2}
        server_options = CertificateOptions(
            privateKey=certificate.privateKey.original, certificate=certificate.original, enableSessions=True, **options
        )
        context = server_options.getContext()
        context.set_session_id(b"test")
        context.set_tlsext_servername_callback(lambda connection: self.server.names.append(connection.get_servername()))
        context.set_alpn_select_callback(lambda connection, offered: offered[0])
        port = reactor.listenSSL(0, self.server, server_options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return port

    def client(
        self,
        *,
        shook_hands: Callable[[Kind | None, bool], object] = lambda error, resumed: None,
        now: Callable[[], float] = lambda: 0.0,
        wall: Callable[[], float] = time.time,
        **settings: Any,
    ) -> TLSClient:
        """A client that trusts the test's authority, unless *settings* say otherwise."""
        chosen = TLSSettings(**({"ca_file": str(self.ca_file)} | settings))
        return TLSClient(chosen, shook_hands=shook_hands, now=now, wall=wall)

    def connect(
        self, client: TLSClient, port: Any, host: str = "localhost", factory: IProtocolFactory | None = None
    ) -> Deferred[Any]:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        return client.wrap(endpoint, host, port.getHost().port).connect(factory or Maker(ClientSide))

    async def close(self, protocol: ClientSide) -> None:
        assert protocol.transport is not None
        protocol.transport.loseConnection()
        await protocol.lost
        await self.server.connections[-1].lost

    async def refused(
        self, kind: Kind, port: Any, host: str = "localhost", client: TLSClient | None = None, **settings: Any
    ) -> str:
        """Connect in vain; returns the detail. The server has received nothing."""
        error = await self.assertFailure(self.connect(client or self.client(**settings), port, host), ProxyError)
        await deferLater(reactor, 0.05, lambda: None)  # whatever is on its way arrives
        self.assertIs(error.kind, kind, error)
        self.assertEqual([connection.received for connection in self.server.connections if connection.received], [])
        for connection in self.server.connections:
            if connection.transport is not None and not connection.lost.called:
                await connection.lost
        detail: str = error.detail
        return detail

    async def talk(self, client: TLSClient, port: Any, host: str = "localhost") -> None:
        protocol = await self.connect(client, port, host)
        await protocol.answered
        await self.close(protocol)
