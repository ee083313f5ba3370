"""The health listener and the gauge of health, over real sockets."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.client import readBody

from tests.chain import ChainCase
from tests.ports import free_port


class HealthListenerTests(ChainCase):
    """Both daemons, with a listener for those who watch."""

    timeout = 30
    tapped = False

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.watched = free_port()
        await self.stop("host")
        self.start("host", None, host_proxy__health_port=self.watched, limits__connections=4)

    async def get(self, page: str, port: int | None = None) -> tuple[int, bytes]:
        """The answer to a GET."""
        response: Any = await self.agent.request(b"GET", f"http://127.0.0.1:{port or self.watched}{page}".encode())
        return response.code, await readBody(response)

    async def test_pages(self) -> None:
        """Health and metrics, and nothing else: it forwards no request."""
        for page in ("/health", "/health/live", "/health/ready", "/metrics"):
            self.assertEqual((await self.get(page))[0], 200, page)
        destination = f"https://localhost:{self.upstream.getHost().port}/hello"
        for page in ("/", f"/{destination}", "/logs"):
            code, body = await self.get(page)
            self.assertEqual(code, 404, page)
            self.assertIn(b"nitroproxy-health", body)
        for target in (destination, f"CONNECT localhost:{self.upstream.getHost().port}"):
            request = target if target.startswith("CONNECT") else f"GET {target}"
            self.assertIn(b" 404 ", await self.raw(f"{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))

    async def raw(self, request: str) -> bytes:
        """The first line of the answer to *request*."""
        received: list[bytes] = []

        async def ask() -> bool:
            client.sendall(request.encode()) if not received else None
            try:
                received.append(client.recv(4096))
            except BlockingIOError:
                received.append(b"")
            return b"\r\n" in b"".join(received)

        with socket.create_connection(("127.0.0.1", self.watched)) as client:
            client.setblocking(False)
            await self.until(True, ask)
        return b"".join(received).partition(b"\r\n")[0]

    async def test_own_limit(self) -> None:
        """A gateway whose places, and whose reserve, are all taken takes none of its places."""
        for _ in range(4 + 64):
            client = socket.create_connection(("127.0.0.1", self.port))
            self.addCleanup(client.close)
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET")
        self.assertEqual((await self.get("/health"))[0], 200)

    async def test_gauge(self) -> None:
        """The metrics have the health of each layer: after the enclave has gone they say so, and what lies beyond is
        unknown."""

        async def statuses() -> dict[str, str]:
            found = {}
            for line in (await self.get("/metrics"))[1].decode().splitlines():
                name, _, value = line.rpartition(" ")
                if name.startswith("nitroproxy_health{") and float(value):
                    labels = dict(pair.split("=") for pair in name[name.index("{") + 1 : -1].split(","))
                    found[labels["layer"].strip('"')] = labels["status"].strip('"')
            return found

        layers = ("host", "vsock", "enclave", "egress", "dns", "policy", "tls_verification")
        await self.until(dict.fromkeys(layers, "pass"), statuses)
        await self.stop("enclave")
        gone = {"host": "pass", "vsock": "fail", "enclave": "fail"}
        await self.until({**dict.fromkeys(layers, "unknown"), **gone}, statuses)

    async def test_memory(self) -> None:
        """The metrics have the enclave's memory."""
        page = (await self.get("/metrics"))[1]
        for state in (b"available", b"total"):
            self.assertRegex(page, rb'nitroproxy_memory_bytes{role="enclave",state="%b"} [1-9]' % state)
        self.assertEqual(page.count(b"nitroproxy_memory_bytes{"), 2)

    async def test_drain(self) -> None:
        """When the daemon is told to stop, readiness fails at once and liveness does not; the gateway accepts for the
        delay; the health listener is there until the last request is over."""
        await self.stop("host")
        self.start("host", None, host_proxy__health_port=self.watched, host_proxy__drain_delay=0.7)
        await self.until(200, self.ready)
        host: Any = self.services["host"]
        stopping = self.stop("host")
        stopped: list[object] = []
        ended = Deferred.fromCoroutine(stopping).addCallback(stopped.append)
        self.assertEqual(await self.ready(), 503)
        self.assertEqual((await self.get("/health/live"))[0], 200)
        self.assertEqual((await self.get("/health/live", self.port))[0], 200)
        self.assertEqual(stopped, [])
        [[gateway], *_] = host._stages

        async def accepting() -> bool:
            return bool(gateway.accepting)

        await self.until(False, accepting)
        await ended

    async def ready(self) -> int:
        """The status of /health/ready."""
        return (await self.get("/health/ready"))[0]
