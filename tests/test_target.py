"""Request targets: what they name, and what is refused (S11, S12)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.target import Origin, Target, normalize_host, parse_target

#: Target of a GET, and the URL it names.
ACCEPTED = [
    (b"/https://httpbin.org/get?x=1", b"https://httpbin.org/get?x=1"),
    (b"/https:/httpbin.org/get", b"https://httpbin.org/get"),
    (b"/HTTPS://HttpBin.ORG./", b"https://httpbin.org/"),
    (b"/http://a.example", b"http://a.example/"),
    (b"/https://a.example:443/", b"https://a.example/"),
    (b"/https://a.example:8443/x", b"https://a.example:8443/x"),
    (b"/http://a.example:443/", b"http://a.example:443/"),
    (b"/https://a.example?q", b"https://a.example/?q"),
    (b"/wss://a.example/chat", b"https://a.example/chat"),
    (b"ws://a.example/chat", b"http://a.example/chat"),
    (b"https://a.example/%2e%2e/x?y=/https://b", b"https://a.example/%2e%2e/x?y=/https://b"),
    (b"https://127.0.0.1/", b"https://127.0.0.1/"),
    (b"https://[::1]:8443/", b"https://[::1]:8443/"),
    (b"https://[2001:DB8:0:0::1]/", b"https://[2001:db8::1]/"),
    (b"https://under_score.example/", b"https://under_score.example/"),
    (b"https://xn--bcher-kva.example/", b"https://xn--bcher-kva.example/"),
    (b"/https%3A/packages.example/simple/x/", b"https://packages.example/simple/x/"),
    (b"/https%3a//localhost%3A8443/bucket/a%3Ab?q=%3A", b"https://localhost:8443/bucket/a%3Ab?q=%3A"),
    (b"/WSS%3A//a.example?q", b"https://a.example/?q"),
    (b"/http%3A//a.example%3A443", b"http://a.example:443/"),
]
LOCAL = [b"/", b"/health", b"/health/live", b"/metrics", b"/httpx://a", b"//host/path", b"/x?u=https://a/"]
REFUSED = [
    b"/https:",
    b"/https:/",
    b"/https://",
    b"/https:///x",
    b"/https:x",
    b"//https://a.example/",
    b"/https%3A",
    b"/https%3A//",
    b"/https%3A///a.example/",
    b"/https%3A%2F%2Fa.example/",
    b"/https%3A//a.example%3A/",
    b"/https%3A//a.example%3Ax/",
    b"/https%3A//a.example:443/",
    b"/https%3A//user%3Apw@a.example/",
    b"/https%3A//a%2Eexample/",
    b"/https%3A//%5B::1%5D/",
    b"///http:/a.example/",
    b"https://",
    b"https:///x",
    b"https://?x",
    b"ftp://a.example/",
    b"file:///etc/passwd",
    b"gopher://a.example/",
    b"health",
    b"a.example:443",
    b"https://user@a.example/",
    b"https://user:pw@a.example/",
    b"https://@a.example/",
    b"https://a.example@b.example/",
    b"https://a.example\\@b.example/",
    b"https://a.example\\x/",
    b"https://a.example/\\x",
    b"https://a.example/x y",
    b"https://a.example/\x01",
    b"https://a.example/\x7f",
    b"https://a.example/\xc3\xa9",
    b"https://a.example/#fragment",
    b"https://a%2eexample/",
    b"https://a.example%00/",
    b"https://a..example/",
    b"https://.example/",
    b"https://a.example../",
    b"https://-a.example/",
    b"https://a-.example/",
    b"https://" + b"a" * 64 + b".example/",
    b"https://" + b"a." * 127 + b"a/",
    b"https://a*b/",
    b"https://a,b/",
    b"https://a.example:0/",
    b"https://a.example:65536/",
    b"https://a.example:/",
    b"https://a.example:+1/",
    b"https://a.example:1x/",
    b"https://a.example:000443/",
    b"https://a:1:2/",
    b"https://127.1/",
    b"https://127.0.1/",
    b"https://2130706433/",
    b"https://0x7f000001/",
    b"https://0x7f.1/",
    b"https://0x7f.0.0.1/",
    b"https://0177.0.0.1/",
    b"https://127.0.0.01/",
    b"https://127.0.0.1./",
    b"https://127.0.0.256/",
    b"https://1.2.3.4.5/",
    b"https://a.0x/",
    b"https://a.1/",
    "https://１２７.0.0.1/".encode(),
    "https://127。0。0。1/".encode(),
    b"https://[::1/",
    b"https://::1/",
    b"https://[::1]x/",
    b"https://[::1%25eth0]/",
    b"https://[fe80::1%eth0]/",
    b"https://[v1.x]/",
    b"https://[127.0.0.1]/",
    b"https://[::g]/",
    b"https://xn--a/",
    "https://bücher.example/".encode(),
    "/https://bücher.example/".encode(),
    b"https://xn--ls8h.example\xff/",
]


class ParseTests(SynchronousTestCase):
    """Every form of a request target."""

    def test_accepted(self) -> None:
        """A target that names a destination gives its normal form."""
        for raw, url in ACCEPTED:
            target = parse_target(b"GET", raw)
            assert target is not None, raw
            self.assertEqual(target.url, url, raw)

    def test_stable(self) -> None:
        """The parsed form, sent on, is parsed the same by the next hop."""
        for raw, _ in ACCEPTED:
            target = parse_target(b"GET", raw)
            assert target is not None
            self.assertEqual(parse_target(b"GET", target.url), target)
            connect = parse_target(b"CONNECT", target.origin.authority)
            assert connect is not None
            self.assertEqual((connect.origin.host, connect.origin.port), (target.origin.host, target.origin.port))

    def test_local(self) -> None:
        """Other paths are the proxy's own pages."""
        for raw in LOCAL:
            self.assertIsNone(parse_target(b"GET", raw), raw)
        self.assertIsNone(parse_target(b"OPTIONS", b"*"))

    def test_refused(self) -> None:
        """A target that could be read in two ways is refused."""
        for raw in REFUSED:
            error = self.assertRaises(ProxyError, parse_target, b"GET", raw)
            self.assertIs(error.kind, Kind.INVALID_TARGET, raw)

    def test_connect(self) -> None:
        """CONNECT takes host:port and nothing else."""
        self.assertEqual(parse_target(b"CONNECT", b"A.example:443"), Target(Origin("https", "a.example", 443), b""))
        for raw in (
            b"a.example",
            b"a.example:",
            b"/https://a.example/",
            b"https://a.example/",
            b"/health",
            b"*",
            b"127.1:443",
        ):
            self.assertRaises(ProxyError, parse_target, b"CONNECT", raw)

    def test_query_is_not_told(self) -> None:
        """A refusal never repeats the query string (S18)."""
        error = self.assertRaises(ProxyError, parse_target, b"GET", b"https://u@a/?token=secret#f")
        self.assertNotIn("secret", str(error))

    def test_userinfo_is_not_told(self) -> None:
        """A refusal never repeats a user name or password, in whichever form they came (S11)."""
        for method, raw in (
            (b"GET", b"https://alice:hunter2@a.example/"),
            (b"GET", b"/https://alice:hunter2@a.example/"),
            (b"GET", b"https://alice@a.example/"),
            (b"CONNECT", b"alice:hunter2@a.example:443"),
            (b"CONNECT", b"alice@a.example:443"),
        ):
            error = self.assertRaises(ProxyError, parse_target, method, raw)
            self.assertIn("user name or password", error.detail)
            self.assertNotRegex(str(error), "alice|hunter2")

    @settings(deadline=None, derandomize=True, max_examples=300)
    @given(st.text(max_size=30))
    def test_any_host(self, text: str) -> None:
        """The normal form of any accepted host is accepted as the same host."""
        try:
            host = normalize_host(text)
        except ValueError:
            return
        self.assertTrue(host.isascii())
        self.assertEqual(normalize_host(f"[{host}]" if ":" in host else host), host)

    def test_u_labels(self) -> None:
        """What people write is encoded; but what becomes an address by that is refused, as no person writes it so."""
        self.assertEqual(normalize_host("Bücher.example"), "xn--bcher-kva.example")
        for host in ("１２７.0.0.1", "127。0。0。1", "a。１", "bü cher.example", "☃️\u200d.example"):
            self.assertRaises(ValueError, normalize_host, host)

    def test_a_target_is_ascii(self) -> None:
        """Other bytes in a target are refused, saying what to send instead (RFC 9112 section 3.2)."""
        for method, raw in ((b"GET", "https://bücher.example/"), (b"CONNECT", "bücher.example:443"), (b"GET", "/é")):
            error = self.assertRaises(ProxyError, parse_target, method, raw.encode())
            self.assertIs(error.kind, Kind.INVALID_TARGET)
            self.assertIn("A-labels", error.detail)

    def test_options_of_the_server(self) -> None:
        """OPTIONS of a URL without a path is about the server: ``*`` at the destination (RFC 9112 section 3.2.4)."""
        for raw in (b"https://a.example", b"/https://a.example"):
            target = parse_target(b"OPTIONS", raw)
            assert target is not None
            self.assertEqual((target.path, target.url), (b"*", b"https://a.example"))
        target = parse_target(b"OPTIONS", b"https://a.example/")
        assert target is not None
        self.assertEqual(target.path, b"/")
