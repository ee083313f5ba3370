"""Tests of `nitroproxy.credentials.pages`."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.credentials.document import Credentials, CredentialsUnavailable, read_metadata
from nitroproxy.credentials.keeper import Keeper
from nitroproxy.credentials.pages import CredentialsRouter, credentials_site
from tests.imds import metadata_document
from tests.wire import OneHop, request, split_head

_BEFORE = 1_700_000_000.0


class PagesTests(SynchronousTestCase):
    """The pages, through the engine."""

    def setUp(self) -> None:
        self.trouble = ""
        self.hop = OneHop()
        keeper = Keeper(self.ask, lambda: _BEFORE, self.hop.deadlines.seconds)
        self.router = CredentialsRouter(credentials_site(keeper, "1"))
        self.hop.factory.router = self.router

    async def ask(self) -> Credentials:
        if self.trouble:
            raise CredentialsUnavailable(self.trouble)
        return read_metadata(metadata_document())

    def get(self, path: str, method: str = "GET") -> tuple[bytes, dict[bytes, bytes], bytes]:
        wire = self.hop.client()
        wire.receive(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return split_head(wire.take())

    def test_credentials(self) -> None:
        """The container form, which nobody may store."""
        line, fields, body = self.get("/credentials")
        self.assertEqual(line, b"HTTP/1.1 200 OK")
        self.assertEqual((fields[b"content-type"], fields[b"cache-control"]), (b"application/json", b"no-store"))
        self.assertEqual(json.loads(body)["AccessKeyId"], "ASIAEXAMPLEEXAMPLE00")

    def test_none(self) -> None:
        """Without credentials 503, and the reason."""
        self.trouble = "the reason"
        line, fields, body = self.get("/credentials")
        self.assertTrue(line.startswith(b"HTTP/1.1 503"))
        self.assertEqual((fields[b"retry-after"], json.loads(body)["detail"]), (b"1", "the reason"))
        self.assertEqual(json.loads(body)["error"], "credentials_unavailable")

    def test_health(self) -> None:
        """Until when they are valid, a warning while there are no newer ones, and failure without any."""
        checks = json.loads(self.get("/health")[2])["checks"]
        self.assertEqual(checks["credentials"][0], {"status": "pass", "output": "until 2026-11-28T06:00:00Z"})
        self.trouble = "broken"
        self.hop.clock.advance(301)
        checks = json.loads(self.get("/health")[2])["checks"]
        self.assertEqual(checks["credentials"][0], {"status": "warn", "output": "until 2026-11-28T06:00:00Z; broken"})
        self.setUp()
        self.trouble = "broken"
        self.assertEqual(json.loads(self.get("/health")[2])["checks"]["credentials"][0]["status"], "fail")

    def test_nothing_else(self) -> None:
        """No other path, method or form of a target is answered."""
        for method, path, status in (
            ("GET", "/latest/meta-data/", b"404"),
            ("GET", "/credentials/x", b"404"),
            ("POST", "/credentials", b"405"),
            ("PUT", "/latest/api/token", b"404"),
            ("GET", "http://169.254.169.254/credentials", b"404"),
            ("CONNECT", "169.254.169.254:80", b"404"),
        ):
            line, _, body = self.get(path, method)
            self.assertEqual(line[9:12], status, (method, path))
            self.assertNotIn(b"ASIA", body)

    def test_no_tunnel(self) -> None:
        """Nothing is to be checked: there are no tunnels."""
        self.router.check_tunnel(None, None)  # type: ignore[arg-type]
        self.assertEqual(self.router.route(request(b"GET", b"/x"), None).longest_body, 0)  # type: ignore[arg-type,union-attr]
