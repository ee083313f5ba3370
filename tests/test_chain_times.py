"""The hops' timeouts together, on real sockets: none of them cuts what waits for its answer on another.

The limits of a hop's tunnels are a fraction of a second here; the destination answers only after they have passed.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.web.client import readBody
from twisted.web.server import NOT_DONE_YET, Request

import nitroproxy.proxy.silence
from tests.chain import ChainCase, Gathering, Upstream, reactor

#: Seconds that a hop's tunnels may be silent, and until the destination answers.
SHORT, LATE = 0.3, 1.2


class Slow(Upstream):
    """Answers /late late; `asked` fires at the first such request."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Deferred[None] = Deferred()

    def render_GET(self, request: Request) -> bytes | int:
        """See `Upstream`."""
        if request.path != b"/late":
            return super().render_GET(request)
        if not self.asked.called:
            self.asked.callback(None)

        def answer() -> None:
            request.write(b"at last")
            request.finish()

        reactor.callLater(LATE, answer)
        return NOT_DONE_YET


class SlowEcho(Protocol):
    """A destination without TLS that returns late what it has received."""

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        reactor.callLater(LATE, transport.write, b"echo " + data)


class TimesCase(ChainCase):
    """Daemons with short timeouts for tunnels."""

    timeout = 30
    tapped = False

    def resource(self) -> Any:
        """The destination."""
        return Slow()

    def configure(self, role: str, **more: object) -> str:
        """See `ChainCase.configure`."""
        limits: dict[str, object] = {
            "limits__idle_timeout": SHORT,
            "limits__tunnel_timeout": SHORT,
            "limits__response_timeout": {"*": 0.1, "localhost:*": 20.0},
            "limits__drain_timeout": 15.0,
        }
        return super().configure(role, **{**limits, **more})

    async def late(self, port: int) -> bytes:
        """The late answer, through the listener at *port*."""
        url = f"http://127.0.0.1:{port}/https://localhost:{self.upstream.getHost().port}/late"
        response: Any = await self.agent.request(b"GET", url.encode())
        return bytes(await readBody(response))

    async def tunnel(self, port: int) -> Gathering:
        """A CONNECT tunnel to a `SlowEcho`, through the listener at *port*."""
        destination: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(SlowEcho)
        )
        self.addCleanup(destination.stopListening)
        where = f"localhost:{destination.getHost().port}"
        client: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(Factory.forProtocol(Gathering))
        client.transport.write(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
        await client.until(b"200 Connection established\r\n")
        tunnel: Gathering = client
        return tunnel


class WaitingTests(TimesCase):
    """A request that waits for its answer."""

    async def test_forwarded(self) -> None:
        """It gets its answer, through the gateway and the enclave's own listener, although the relay's tunnel is
        silent."""
        for port in (self.port, self.loopback):
            self.assertEqual(await self.late(port), b"at last")

    async def test_in_a_tunnel(self) -> None:
        """So does a request that a client carries in a tunnel of its own, which two or three hops must leave alone."""
        for port in (self.port, self.loopback):
            client = await self.tunnel(port)
            assert client.transport is not None
            client.transport.write(b"question")
            await client.until(b"echo question")

    async def test_silent_tunnel(self) -> None:
        """A tunnel in which no answer is awaited ends, and the log says why."""
        events = self.events()
        client = await self.tunnel(self.loopback)
        await client.ended
        ends = {event["hop"]: event["end"] for event in events if event["event"] == "access" and event["tunnel"]}
        self.assertEqual(ends["nitroproxy-enclave"], "tunnel_timeout")


class DrainTests(TimesCase):
    """A daemon is stopped while a request waits for its answer."""

    def setUp(self) -> Any:
        """The daemon takes a tunnel for idle after a moment when it drains."""
        self.patch(nitroproxy.proxy.silence, "_QUIET", SHORT)
        return ensureDeferred(super().setUp())

    async def drained(self, role: str, port: int) -> None:
        """A request through *port* gets its answer although *role*'s daemon is stopped while it waits."""
        destination: Any = self.upstream_resource
        waiting = ensureDeferred(self.late(port))
        await destination.asked
        stopping = ensureDeferred(self.stop(role))
        self.assertEqual(await waiting, b"at last")
        await stopping

    async def test_host(self) -> None:
        """The host's gateway and relay wait for a request of an application on the host."""
        await self.drained("host", self.port)

    async def test_host_for_the_enclave(self) -> None:
        """The relay waits for a request of an application in the enclave, which it sees as bytes in a tunnel."""
        await self.drained("host", self.loopback)

    async def test_enclave(self) -> None:
        """The enclave waits for a request of an application on the host, and for one of its own."""
        await self.drained("enclave", self.port)

    async def test_enclave_for_its_own(self) -> None:
        """The enclave waits for a request of an application of its own."""
        await self.drained("enclave", self.loopback)

    async def test_in_a_tunnel(self) -> None:
        """All hops wait for a request that a client carries in a tunnel."""
        client = await self.tunnel(self.port)
        assert client.transport is not None
        client.transport.write(b"question")
        stopping = ensureDeferred(self.stop("host"))
        await client.until(b"echo question")
        client.transport.loseConnection()
        await stopping
