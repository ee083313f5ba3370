"""Requests that a browser sends for another site's page (K1)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Fields, Request
from nitroproxy.proxy.browser import check_origin
from tests.wire import OneHop

NAMES = frozenset({"proxy.internal"})


def ask(*fields: bytes, page: bool = False) -> Kind | None:
    """The result for a request with these field lines: the kind of failure, or None."""
    headers = [tuple(line.split(b": ", 1)) for line in fields]
    request = Request(b"GET", b"/https://a.example/", Fields(headers))  # type: ignore[arg-type]
    try:
        check_origin(request, page=page, names=NAMES)
    except ProxyError as error:
        return error.kind
    return None


HOST = b"Host: localhost:8080"


class OriginTests(SynchronousTestCase):
    """The origin of a request."""

    def test_no_browser(self) -> None:
        """A client that sends none of a browser's fields is accepted, whatever its Host."""
        self.assertIsNone(ask(b"Host: anything.example"))
        self.assertIsNone(ask(b"Host: anything.example", b"Referer: https://evil.example/"))

    def test_own(self) -> None:
        """The address bar and pages of the same origin are accepted."""
        for fields in (
            (b"Sec-Fetch-Site: none",),
            (b"Sec-Fetch-Site: same-origin", b"Sec-Fetch-Mode: cors", b"Origin: http://localhost:8080"),
            (b"Origin: HTTP://LOCALHOST:8080",),
        ):
            self.assertIsNone(ask(HOST, *fields), fields)
        self.assertIsNone(ask(b"Host: 127.0.0.1", b"Origin: http://127.0.0.1:80"))
        self.assertIsNone(ask(b"Host: [::1]:8080", b"Origin: http://[::1]:8080"))

    def test_another_site(self) -> None:
        """Pages of other sites are refused, also of the same site on another port, or with a field sent twice."""
        for fields in (
            (b"Sec-Fetch-Site: cross-site",),
            (b"Sec-Fetch-Site: same-site",),
            (b"Sec-Fetch-Site: ",),
            (b"Sec-Fetch-Site: none", b"Sec-Fetch-Site: cross-site"),
            (b"Sec-Fetch-Site: none, cross-site",),
            (b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: navigate"),
            (b"Origin: http://evil.example",),
            (b"Origin: http://localhost:3000",),
            (b"Origin: https://localhost:8080",),
            (b"Origin: null",),
            (b"Origin: http://localhost:8080", b"Origin: http://evil.example"),
            (b"Sec-Fetch-Site: same-origin", b"Origin: http://evil.example"),
        ):
            self.assertIs(ask(HOST, *fields), Kind.CROSS_SITE_REQUEST, fields)

    def test_service_worker(self) -> None:
        """No destination's page may register a service worker: it would control those of all others from then on."""
        own = (HOST, b"Sec-Fetch-Site: same-origin", b"Sec-Fetch-Mode: same-origin")
        for field in (b"Service-Worker: script", b"Sec-Fetch-Dest: serviceworker"):
            self.assertIs(ask(*own, field), Kind.CROSS_SITE_REQUEST, field)
        self.assertIs(ask(HOST, b"Service-Worker: script"), Kind.CROSS_SITE_REQUEST)
        self.assertIsNone(ask(*own, b"Sec-Fetch-Dest: worker"))

    def test_a_link_to_a_page(self) -> None:
        """A link on another site may lead to a page of our own; a page may not load it in any other way."""
        site = b"Sec-Fetch-Site: cross-site"
        self.assertIsNone(ask(HOST, site, b"Sec-Fetch-Mode: navigate", page=True))
        for mode in (b"Sec-Fetch-Mode: no-cors", b"Sec-Fetch-Mode: cors", b"Sec-Fetch-Dest: image"):
            self.assertIs(ask(HOST, site, mode, page=True), Kind.CROSS_SITE_REQUEST, mode)

    def test_rebinding(self) -> None:
        """A browser may use an IP address, localhost and the configured names; any other name may have been rebound."""
        browser = b"Sec-Fetch-Site: same-origin"
        for host in (
            b"127.0.0.1",
            b"10.0.0.7:8080",
            b"[::1]:8080",
            b"localhost",
            b"LocalHost:80",
            b"proxy.internal:80",
        ):
            self.assertIsNone(ask(b"Host: " + host, browser), host)
        for host in (b"evil.example", b"localhost.evil.example:8080", b"1.2.3.4.evil.example", b"127.1", b""):
            self.assertIs(ask(b"Host: " + host, browser), Kind.CROSS_SITE_REQUEST, host)
            self.assertIs(ask(b"Host: " + host, browser, page=True), Kind.CROSS_SITE_REQUEST, host)
            self.assertIs(ask(b"Host: " + host, b"Sec-Fetch-Dest: image"), Kind.CROSS_SITE_REQUEST, host)
        self.assertIs(ask(browser), Kind.CROSS_SITE_REQUEST)


class ListenerTests(SynchronousTestCase):
    """Through a listener."""

    def answer(self, target: bytes) -> tuple[bytes, int]:
        """The answer to a cross-site request, and how many connections to the next hop it led to."""
        hop = OneHop()
        client = hop.client()
        client.receive(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n")
        return client.take(), len(hop.endpoint.waiting)

    def test_path_form(self) -> None:
        """In path form it is refused, and nothing is sent on."""
        answer, sent = self.answer(b"/https://a.example/")
        self.assertTrue(answer.startswith(b"HTTP/1.1 403 "))
        self.assertIn(b"cross_site_request", answer)
        self.assertEqual(sent, 0)

    def test_absolute_form(self) -> None:
        """A browser that uses this as its proxy sends such fields about the destination: they are not checked."""
        self.assertEqual(self.answer(b"https://a.example/"), (b"", 1))

    def test_a_page_has_no_origin_of_ours(self) -> None:
        """A destination's page that a browser opens in path form is put in a sandbox: else its scripts could read every
        other destination, which all have the proxy's origin. The destination's own policy stays; a client that is no
        browser, and a browser whose proxy this is, see nothing of it."""
        for target, fields, expected in (
            (b"/https://a.example/", b"Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n", True),
            (b"/https://a.example/", b"", False),
            (b"https://a.example/", b"Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n", False),
        ):
            hop = OneHop()
            client = hop.client()
            client.receive(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n")
            hop.endpoint.accept().receive(
                b"HTTP/1.1 200 OK\r\nContent-Security-Policy: default-src *\r\nContent-Length: 0\r\n\r\n"
            )
            answer = client.take()
            self.assertEqual(b"\r\nContent-Security-Policy: sandbox allow-" in answer, expected, fields)
            self.assertIn(b"\r\nContent-Security-Policy: default-src *", answer)
            self.assertNotIn(b"allow-same-origin", answer)
