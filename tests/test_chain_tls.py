"""The whole chain: what SIGHUP changes about TLS towards destinations, all of it or nothing."""

from __future__ import annotations

import json
from typing import Any

from cryptography import x509
from twisted.internet import reactor as global_reactor
from twisted.internet.ssl import PrivateCertificate
from twisted.web.client import readBody
from twisted.web.server import Site

from tests.chain import ChainCase
from tests.tlsmemory import Authority

reactor: Any = global_reactor


class ReloadTests(ChainCase):
    """The enclave's section tls, loaded anew."""

    async def ask(self) -> tuple[int, str]:
        """What a client of the gateway gets: the status, and the detail of a failure."""
        response: Any = await self.agent.request(b"GET", self.url("/"))
        body = await readBody(response)
        return response.code, json.loads(body)["detail"] if response.code != 200 else ""

    async def test_anchors(self) -> None:
        """ca_file and extra_ca_file change with a reload; so do verdicts and sessions, which count for the old ones."""
        self.assertEqual(await self.ask(), (200, ""))
        self.assertTrue(self.reload("enclave", tls__ca_file=None))
        status, detail = await self.ask()
        self.assertEqual(status, 502)
        self.assertIn("tls.extra_ca_file", detail)
        self.assertTrue(self.reload("enclave", tls__ca_file=None, tls__extra_ca_file=str(self.directory / "ca.pem")))
        self.assertEqual(await self.ask(), (200, ""))

    async def test_profile(self) -> None:
        """A chain that conforms to no more than OpenSSL asks is refused once webpki is set, with the setting named."""
        root = Authority()
        identity = root.issue("localhost", without=[x509.AuthorityKeyIdentifier])
        with (self.directory / "ca.pem").open("ab") as roots:
            roots.write(root.pem)
        self.assertTrue(self.reload("enclave"))
        certificate = PrivateCertificate.loadPEM(identity.key_pem + identity.pem)
        self.upstream = reactor.listenSSL(0, Site(self.resource()), certificate.options(), interface="127.0.0.1")
        self.addCleanup(self.upstream.stopListening)
        self.assertEqual(await self.ask(), (200, ""))
        self.assertTrue(self.reload("enclave", tls__certificate_profile="webpki"))
        status, detail = await self.ask()
        self.assertEqual(status, 502)
        self.assertIn("tls.certificate_profile", detail)

    async def test_broken(self) -> None:
        """Files that cannot be used change nothing, and each is named in the log."""
        events = self.events()
        missing = {"certificate_file": "/no/such/certificate", "key_file": "/no/such/key"}
        self.assertFalse(
            self.reload(
                "enclave",
                tls__client_certificates={"localhost:*": missing},
                tls__extra_ca_file="/no/such/file",
                tls__certificate_profile="webpki",
            )
        )
        [event] = [event for event in events if event["event"] == "reload_failed"]
        self.assertIn("tls.extra_ca_file: /no/such/file: No such file or directory", event["message"])
        self.assertIn(
            "tls.client_certificates: localhost:*: /no/such/certificate: No such file or directory", event["message"]
        )
        self.assertEqual(await self.ask(), (200, ""))
