"""NTLM through the whole chain: a login belongs to the client that made it, and works (RFC 4559)."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers

from tests.chain import ChainCase, reactor
from tests.ntlm import NTLMLogin, NTLMResource, user_file


class Client:
    """A client with one connection, through the gateway or the enclave's loopback.

    :param url: the URL that it requests.
    """

    def __init__(self, url: bytes) -> None:
        self.pool = HTTPConnectionPool(reactor)
        self.pool.maxPersistentPerHost = 1
        self._agent = Agent(reactor, pool=self.pool)
        self._url = url

    async def get(self, authorization: str | None = None) -> tuple[int, bytes, str | None]:
        """The status, the body and the challenge."""
        headers = Headers({"Authorization": [authorization]} if authorization else {})
        response: Any = await self._agent.request(b"GET", self._url, headers)
        body = await readBody(response)
        await deferLater(reactor, 0, lambda: None)  # The agent takes the connection back in the reactor's next turn.
        challenges = response.headers.getRawHeaders("WWW-Authenticate") or [None]
        return response.code, body, challenges[0]


class LoginTests(ChainCase):
    """Two clients of one destination; one of them logs in."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits what it returns
        users = user_file()
        self.addCleanup(users.unlink)
        self.patch(os, "environ", {**os.environ, "NTLM_USER_FILE": str(users)})
        await super().setUp()

    def resource(self) -> Any:
        """The destination."""
        return NTLMResource()

    def client(self, port: int) -> Client:
        """A new client of the listener at *port*."""
        client = Client(self.url("/").replace(b":%d/" % self.port, b":%d/" % port, 1))
        self.addCleanup(client.pool.closeCachedConnections)
        return client

    async def handshake(self, port: int) -> None:
        """Alice's three steps succeed while another client's requests come in between, each answered with 401."""
        alice, other = self.client(port), self.client(port)
        self.assertEqual((await other.get())[0], 401)
        self.assertEqual((await alice.get())[0], 401)
        login = NTLMLogin("alice")
        status, _, challenge = await alice.get(login.authorization())
        self.assertEqual(status, 401)
        self.assertEqual((await other.get())[0], 401)
        self.assertEqual((await alice.get(login.authorization(challenge)))[:2], (200, b"alice"))
        self.assertEqual((await other.get())[:2], (401, b"who are you?"))
        self.assertEqual((await alice.get())[:2], (200, b"alice"), "the connection stays logged in")
        self.assertEqual((await self.client(port).get())[:2], (401, b"who are you?"))
        bob = NTLMLogin("bob")
        _, _, challenge = await other.get(bob.authorization())
        self.assertEqual((await other.get(bob.authorization(challenge)))[:2], (200, b"bob"))
        self.assertEqual((await alice.get())[:2], (200, b"alice"))

    async def test_gateway(self) -> None:
        """Through gateway and enclave: both hops pin alike."""
        await self.handshake(self.port)

    async def test_loopback(self) -> None:
        """Through the enclave's loopback."""
        await self.handshake(self.loopback)

    async def test_the_login_ends_with_its_client(self) -> None:
        """When a client that has logged in leaves, its connection ends too and serves no other client."""
        alice = self.client(self.port)
        login = NTLMLogin("alice")
        _, _, challenge = await alice.get(login.authorization())
        self.assertEqual((await alice.get(login.authorization(challenge)))[:2], (200, b"alice"))
        await alice.pool.closeCachedConnections()
        self.assertEqual((await self.client(self.port).get())[:2], (401, b"who are you?"))
        self.assertEqual(self.upstream_resource.connections, 2)
