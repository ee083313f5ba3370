"""The name check of `nitroproxy.tls.client`: done once for a certificate and a host, and never less (S14, S15)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service_identity.pyopenssl import verify_hostname

import nitroproxy.tls.client
from nitroproxy.demo.certificates import MAKE_BAD
from nitroproxy.errors import Kind
from tests.tlsserver import TLSCase


class NameTests(TLSCase):
    """Certificates and hosts."""

    def count_checks(self) -> list[str]:
        """The hosts for which service-identity is asked from now on."""
        checked: list[str] = []
        genuine: Callable[..., None] = verify_hostname

        def count(handle: Any, host: str) -> None:
            checked.append(host)
            genuine(handle, host)

        self.patch(nitroproxy.tls.client, "verify_hostname", count)
        return checked

    async def test_name_once(self) -> None:
        """A certificate that is for the host is not parsed again, resumed or not; another one is."""
        checked = self.count_checks()
        client = self.client()
        first, second = self.serve(self.authority.issue()), self.serve(self.authority.issue())
        for port in (first, first, second, first):
            await self.talk(client, port)
        self.assertEqual(checked, ["localhost", "localhost"])

    async def test_name_of_another_certificate(self) -> None:
        """A wrong certificate is refused where a right one was seen before, and a right one for another host."""
        client = self.client()
        port = self.serve(self.authority.issue())
        await self.talk(client, port)
        wrong = self.serve(MAKE_BAD["wrong_name"](self.authority))
        for place, host in ((wrong, "localhost"), (port, "other.example"), (port, "127.0.0.2")):
            self.server.connections.clear()
            detail = await self.refused(Kind.TLS_CERTIFICATE_ERROR, place, host, client=client)
            self.assertIn(f"not for {host}", detail)

    async def test_refusal_is_not_remembered(self) -> None:
        """Only what passed is kept in mind: a wrong certificate is looked at each time, and refused each time."""
        checked = self.count_checks()
        client = self.client()
        port = self.serve(MAKE_BAD["wrong_name"](self.authority))
        for _ in range(2):
            await self.refused(Kind.TLS_CERTIFICATE_ERROR, port, client=client)
        self.assertEqual(checked, ["localhost", "localhost"])

    async def test_names_are_forgotten(self) -> None:
        """Of too many certificates the one that was not met for longest is forgotten."""
        self.patch(nitroproxy.tls.client, "_NAMES", 2)
        checked = self.count_checks()
        client = self.client()
        a, b, c = (self.serve(self.authority.issue()) for _ in range(3))
        for port in (a, b, a, c, a, b):
            await self.talk(client, port)
        self.assertEqual(len(checked), 4)  # of a, b, c, and of b again

    async def test_memory_fails_closed(self) -> None:
        """A failure of the memory of names refuses, too (S14)."""
        port = self.serve(self.authority.issue())

        def broken(*arguments: object) -> None:
            raise MemoryError

        self.patch(nitroproxy.tls.client, "sha256", broken)
        self.assertIn("MemoryError", await self.refused(Kind.TLS_CERTIFICATE_ERROR, port))
