"""Places on all hops: one application that takes all it can shuts out neither the other side nor health checks (K2)."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.web.client import readBody

from tests.chain import ChainCase


class PlacesTests(ChainCase):
    """Few places, and one application that takes as many as it is given."""

    timeout = 30
    tapped = False

    async def restart(self, **more: object) -> None:
        """Start both daemons anew with *more*."""
        for role in ("host", "enclave"):
            await self.stop(role)
        for role in ("host", "enclave"):
            self.start(role, None, **more)

    def hold(self, port: int, count: int) -> None:
        """Ask *count* times for what is never answered, and wait for it."""
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
        """A page of the destination's, by way of the proxy at *port*."""
        return f"http://127.0.0.1:{port}/https://localhost:{self.upstream.getHost().port}/hello"

    async def relay(self) -> int:
        """How many tunnels the relay has."""
        return (await self.in_flight())["relay"]

    async def test_enclave_takes_all(self) -> None:
        """An application in the enclave that takes all it is given leaves the host its places, and health."""
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
        """An application on the host that takes all it is given leaves the enclave its places, and health."""
        await self.restart(limits__connections=8)
        self.hold(self.port, 12)
        await self.until(8, self.relay)
        self.assertEqual((await self.get(self.through(self.port)))[0], 503)
        self.assertEqual((await self.get(self.through(self.loopback)))[0], 200)
        for port, page in ((self.port, "/health/live"), (self.port, "/health"), (self.loopback, "/health")):
            self.assertEqual((await self.get(f"http://127.0.0.1:{port}{page}"))[0], 200, page)

    async def test_more_places(self) -> None:
        """A reload gives places to connections that are in the reserve, and gives the next requests theirs."""
        await self.restart(limits__connections=8)
        self.hold(self.loopback, 8)
        await self.until(8, self.relay)
        self.assertEqual((await self.get(self.through(self.loopback)))[0], 503)
        self.assertTrue(self.reload("enclave", limits__connections=80))
        self.assertEqual((await self.get(self.through(self.loopback)))[0], 200)

    async def test_crowd_without_requests(self) -> None:
        """Connections that send nothing, hundreds of them, keep no health check out."""
        await self.restart(limits__connections=4)
        for _ in range(300):
            client = socket.create_connection(("127.0.0.1", self.port))
            self.addCleanup(client.close)
        live = f"http://127.0.0.1:{self.port}/health/live"
        answers = await gatherResults([self.agent.request(b"GET", live.encode()) for _ in range(20)])
        self.assertEqual([answer.code for answer in answers], [200] * 20)
        await gatherResults([readBody(answer) for answer in answers])
