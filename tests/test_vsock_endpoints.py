"""vsock endpoints: their results for callers, and the strings that describe them."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.vsock.address import CID_ANY
from nitroproxy.vsock.endpoints import VsockClientEndpoint
from tests.test_vsock_transport import VsockTestCase, reactor


class StringTests(SynchronousTestCase):
    """``vsock:`` strings."""

    def parse(self, text: str, client: bool) -> dict[str, Any]:
        parse = clientFromString if client else serverFromString
        endpoint: Any = parse(MemoryReactorClock(), text)
        return dict(vars(endpoint))

    def test_server(self) -> None:
        """A server listens on any cid by default, with a long queue."""
        self.assertEqual(self.parse("vsock:5000", False).items() >= {("_port", 5000), ("_cid", CID_ANY)}, True)
        given = self.parse("vsock:port=5000:cid=3:backlog=7", False)
        self.assertEqual((given["_port"], given["_cid"], given["_backlog"]), (5000, 3, 7))
        self.assertGreaterEqual(self.parse("vsock:5000", False)["_backlog"], 1024)

    def test_client(self) -> None:
        """A client names a cid and a port."""
        given = self.parse("vsock:cid=16:port=5000:timeout=2.5", True)
        self.assertEqual((given["_cid"], given["_port"], given["_timeout"]), (16, 5000, 2.5))

    def test_refused(self) -> None:
        """A value that is no number, or no 32-bit number, is named: Python would silently cut it."""
        for text, client, word in (
            ("vsock:x", False, "port"),
            ("vsock:5000:cid=x", False, "cid"),
            ("vsock:5000:backlog=x", False, "backlog"),
            ("vsock:4294967296", False, "4294967296"),
            ("vsock:4294967295", False, "4294967295"),
            ("vsock:-1", False, "-1"),
            ("vsock:cid=4294967296:port=1", True, "4294967296"),
            ("vsock:cid=16:port=1:timeout=x", True, "timeout"),
        ):
            failure = self.assertRaises(ValueError, self.parse, text, client)
            self.assertIn(word, str(failure))


class ClientEndpointTests(VsockTestCase):
    """Connecting, as with any client endpoint."""

    async def test_factory_refuses(self) -> None:
        """A factory that refuses the connection, or fails, fails the attempt and leaves no connection."""

        class Unwilling(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> None:
                return None

        class Broken(Unwilling):
            def buildProtocol(self, addr: object) -> None:
                raise ArithmeticError("broken")

        port = await self.listen()
        for factory, kind in ((Unwilling(), RuntimeError), (Broken(), ArithmeticError)):
            accepted = self.server.accepted
            await self.assertFailure(VsockClientEndpoint(reactor, 1, port.getHost().port).connect(factory), kind)
            server = await accepted
            await server.read_ended
            server.transport.loseConnection()
            await server.lost

    async def test_cancel(self) -> None:
        """An attempt can be cancelled; its socket is closed."""
        kernel = self.fake()
        port = await self.listen()
        connecting = self.connect(port.getHost().port)
        connecting.cancel()
        await self.assertFailure(connecting, error.ConnectingCancelledError)
        self.assertEqual(kernel.made[-1].fileno(), -1)

    async def test_transport_is_the_protocols(self) -> None:
        """The connected protocol owns the transport: no layer stays between them."""
        client, server = await self.pair()
        self.assertIs(client.transport.protocol, client)
        for side in (client, server):
            side.transport.abortConnection()
            await side.lost
