"""Redirects of requests in path form lead through the proxy again."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.proxy.location import through_proxy
from tests.wire import OneHop, split_head

ASKED = b"/https://a.example:8443/x/y?q"


class LocationTests(SynchronousTestCase):
    """A Location field."""

    def test_rewritten(self) -> None:
        """Locations that are absolute, without a scheme, from the root, relative, with dots, or only a query or
        fragment."""
        for location, expected in (
            (b"https://b.example/z", b"/https://b.example/z"),
            (b"HTTPS://b.example/z#f", b"/https://b.example/z#f"),
            (b"http://b.example/", b"/http://b.example/"),
            (b"//b.example/z", b"/https://b.example/z"),
            (b"/z", b"/https://a.example:8443/z"),
            (b"z", b"/https://a.example:8443/x/z"),
            (b"../z?a=b", b"/https://a.example:8443/z?a=b"),
            (b"?r", b"/https://a.example:8443/x/y?r"),
            (b"", b"/https://a.example:8443/x/y?q"),
        ):
            self.assertEqual(through_proxy(location, b"GET", ASKED), expected, location)

    def test_left_alone(self) -> None:
        """Locations that are no http(s) URL, cannot be read, or answer another form stay unchanged."""
        for location in (b"mailto:a@b.example", b"javascript:1", b"caf\xe9", b"https://[", b"x" * 70000):
            self.assertEqual(through_proxy(location, b"GET", ASKED), location)
        self.assertEqual(through_proxy(b"/z", b"GET", b"/health"), b"/z")

    def test_in_a_response(self) -> None:
        """In path form with the setting on, in every Location of any status; not in absolute form, not with it off."""
        for target, on, expected in (
            (ASKED, True, b"/https://a.example:8443/z"),
            (ASKED, False, b"/z"),
            (ASKED[1:], True, b"/z"),
        ):
            hop = OneHop()
            hop.set(rewrite_location=on)
            client = hop.client()
            client.receive(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            hop.endpoint.accept().receive(b"HTTP/1.1 302 Found\r\nlocation: /z\r\nContent-Length: 0\r\n\r\n")
            self.assertEqual(split_head(client.take())[1][b"location"], expected)
