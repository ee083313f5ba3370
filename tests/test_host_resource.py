"""The gateway's own pages: what is served where."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.host.resource import HealthOfHost, gateway_site
from nitroproxy.http1.messages import Request
from nitroproxy.proxy.route import Local, Route
from tests.wire import OneHop, split_head


class PagesTests(SynchronousTestCase):
    """Without an enclave: health and metrics are not asked for here."""

    def setUp(self) -> None:
        nobody: Any = None
        self.site = gateway_site(HealthOfHost(nobody, nobody, "", verifies=True), nobody, "1<2")

    def route(self, request: Request) -> Route:
        return Local(self.site)

    def ask(self, method: bytes, target: bytes) -> tuple[bytes, bytes]:
        client = OneHop(self.route).client()
        client.receive(method + b" " + target + b" HTTP/1.1\r\nHost: gateway.example\r\n\r\n")
        start, _, body = split_head(client.take())
        return start.split(b" ")[1], body

    def test_index(self) -> None:
        """The slash says how to use the gateway, by its own name; a query changes nothing."""
        for target in (b"/", b"/?x=y"):
            status, body = self.ask(b"GET", target)
            self.assertEqual(status, b"200")
            self.assertIn(b"curl http://gateway.example/https://httpbin.org/get", body)
            self.assertIn(b"nitroproxy 1&lt;2", body)

    def test_index_methods(self) -> None:
        """HEAD is the page without its body; nothing else is known there."""
        self.assertEqual(self.ask(b"HEAD", b"/"), (b"200", b""))
        self.assertEqual(self.ask(b"POST", b"/")[0], b"405")

    def test_nothing_below_the_index(self) -> None:
        """What begins with two slashes is no page: nobody takes a mistyped URL for answered."""
        for target in (b"//", b"//x", b"//host/path", b"//https/host"):
            self.assertEqual(self.ask(b"GET", target)[0], b"404", target)
