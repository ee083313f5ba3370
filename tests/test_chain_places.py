"""Places on all hops: one application that takes all the places it can get does not shut out the other side or health
checks (K2)."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.web.client import readBody

from tests.chain import ChainCase


class PlacesTests(ChainCase):
    """Few places, and one application that takes all it can get."""

    timeout = 30
    tapped = False

    async def restart(self, **more: object) -> None:
        """Start both daemons again with *more*."""
        for role in ("host", "enclave"):
            await self.stop(role)
        for role in ("host", "enclave"):
            self.start(role, None, **more)

    def hold(self, port: int, count: int) -> None:
        """Send *count* requests that are never answered, and wait until they arrive."""
        target = f"https://localhost:{self.upstream.getHost().port}/silent"
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port))
            self.addCleanup(client.close)
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    async def get(self, url: str) -> tuple[int, bytes]:
        """The answer to a GET."""
        response: Any = await self.agent.request(b"GET", url.encode())
        return response.code, await readBody(response)

    def through(self, port: int) -> str:
        """A page of the destination, through the proxy at *port*."""
        return f"http://127.0.0.1:{port}/https://localhost:{self.upstream.getHost().port}/hello"

    async def relay(self) -> int:
        """The number of tunnels in the relay."""
        return (await self.in_flight())["relay"]

    async def test_enclave_takes_all(self) -> None:
        """An application in the enclave that takes all it can get leaves the host its places, and health."""
        await self.restart(limits__connections=8)
        self.hold(self.loopback, 12)
        await self.until(8, self.relay)
        code, body = await self.get(self.through(self.loopback))
        self.assertEqual(code, 503)
        self.assertIn(b"connection_limit_reached", body)
        self.assertEqual((await self.get(self.through(self.port)))[0], 200)
        for port, page in ((self.port, "/health/live"), (self.port, "/health"), (self.loopback, "/health")):
            self.assertEqual((await self.get(f"http://127.0.0.1:{port}{page}"))[0], 200, page)

    async def test_host_takes_all(self) -> None:
        """An application on the host that takes all it can get leaves the enclave its places, and health."""
        await self.restart(limits__connections=8)
        self.hold(self.port, 12)
        await self.until(8, self.relay)
        self.assertEqual((await self.get(self.through(self.port)))[0], 503)
        self.assertEqual((await self.get(self.through(self.loopback)))[0], 200)
        for port, page in ((self.port, "/health/live"), (self.port, "/health"), (self.loopback, "/health")):
            self.assertEqual((await self.get(f"http://127.0.0.1:{port}{page}"))[0], 200, page)

    async def test_more_places(self) -> None:
        """A reload gives places to connections in the reserve, and to the next requests."""
        await self.restart(limits__connections=8)
        self.hold(self.loopback, 8)
        await self.until(8, self.relay)
        self.assertEqual((await self.get(self.through(self.loopback)))[0], 503)
        self.assertTrue(self.reload("enclave", limits__connections=80))
        self.assertEqual((await self.get(self.through(self.loopback)))[0], 200)

    async def test_crowd_without_requests(self) -> None:
        """Hundreds of connections that send nothing do not block health checks."""
        await self.restart(limits__connections=4)
        for _ in range(300):
            client = socket.create_connection(("127.0.0.1", self.port))
            self.addCleanup(client.close)
        live = f"http://127.0.0.1:{self.port}/health/live"
        answers = await gatherResults([self.agent.request(b"GET", live.encode()) for _ in range(20)])
        self.assertEqual([answer.code for answer in answers], [200] * 20)
        await gatherResults([readBody(answer) for answer in answers])
