"""The options of TCP connections on real sockets: accepted by a listener of ours, and dialled by the relay."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, UNIXClientEndpoint, UNIXServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from nitroproxy.sockets.options import set_tcp_options, socket_of

reactor: Any = global_reactor


class Accepting(Protocol):
    """An accepted connection; *made* fires with it."""

    def __init__(self, made: Deferred[Any]) -> None:
        self._made = made

    def connectionMade(self) -> None:
        set_tcp_options(self.transport)
        self._made.callback(self)


class OptionTests(TestCase):
    """The options that the kernel is asked for."""

    async def accepted(self, server: Any, client_of: Any) -> Any:
        """A connection accepted at *server*."""
        made: Deferred[Any] = Deferred()
        port: Any = await server.listen(Factory.forProtocol(lambda: Accepting(made)))
        self.addCleanup(port.stopListening)
        client: Any = await client_of(port).connect(Factory.forProtocol(Protocol))
        self.addCleanup(client.transport.abortConnection)
        return await made

    async def test_tcp(self) -> None:
        """Small segments leave at once, and a vanished peer is detected before AWS's NAT forgets the connection."""
        protocol = await self.accepted(
            TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
            lambda port: TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port),
        )
        connection = socket_of(protocol.transport)
        assert connection is not None
        self.assertTrue(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        self.assertTrue(connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle, interval, count = (connection.getsockopt(socket.IPPROTO_TCP, option) for option in options)
        self.assertLess(idle + interval * count, 350)

    async def test_slow_reader(self) -> None:
        """For a peer that does not read the kernel takes some hundred KB, and not the megabytes that it would."""
        protocol = await self.accepted(
            TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
            lambda port: TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port),
        )
        connection = socket_of(protocol.transport)
        assert connection is not None
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                taken += connection.send(bytes(16384))
        self.assertLess(taken, 1_000_000)

    async def test_unix(self) -> None:
        """A UNIX socket has no such options, and is left unchanged."""
        path = self.mktemp()[-90:]
        protocol = await self.accepted(UNIXServerEndpoint(reactor, path), lambda _: UNIXClientEndpoint(reactor, path))
        self.assertIsNotNone(socket_of(protocol.transport))
