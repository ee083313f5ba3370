"""A stop of the host while the enclave keeps connections to destinations in reserve."""

from __future__ import annotations

from typing import Any

from twisted.web.client import readBody

from tests.chain import ChainCase


class StopTests(ChainCase):
    """After one request, whose tunnel the relay cannot tell from one whose client waits."""

    timeout = 30
    tapped = False

    async def test_tunnels_in_reserve(self) -> None:
        """The host asks the enclave to close them and drains, long before it would take them for idle itself."""
        await self.stop("host")
        self.start("host", limits__drain_timeout=4)
        response: Any = await self.agent.request(b"GET", self.url("/hello"))
        self.assertEqual(await readBody(response), b"hello ")
        self.assertEqual((await self.in_flight())["relay"], 1)
        service: Any = self.services.pop("host")
        self.assertTrue(await service.stopService())
