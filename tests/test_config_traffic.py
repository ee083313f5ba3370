"""Tests of `nitroproxy.config.traffic`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.jsonc import Members
from nitroproxy.config.traffic import Egress, Ingress, IngressForward, Limits, Tls
from nitroproxy.config.values import plain, understand, violations
from tests.configs import wanted


class ByPatternTests(SynchronousTestCase):
    """A value that is a number, or an object of patterns and numbers: limits.response_timeout."""

    WANTED = wanted(Limits, "response_timeout")

    def told(self, value: object) -> list[str]:
        """What is wrong with *value* as a source gives it."""
        return list(violations(plain(value, self.WANTED), self.WANTED))

    def test_understood(self) -> None:
        """From the environment and the command line, too."""
        self.assertEqual(understand("30", self.WANTED), 30)
        self.assertEqual(understand('{"*": 30}', self.WANTED), Members([("*", 30)]))
        self.assertEqual(understand("soon", self.WANTED), "soon")

    def test_right(self) -> None:
        """An object becomes a dictionary; nothing else is changed."""
        members = Members([("*", 30), ("api.example:443", 0.5)])
        self.assertEqual(plain(members, self.WANTED), {"*": 30, "api.example:443": 0.5})
        for value in (members, 30, 0.5, Members()):
            self.assertEqual(self.told(value), [])
        self.assertEqual(plain(30, self.WANTED), 30)
        self.assertIs(plain(members, wanted(Limits, "idle_timeout")), members)

    def test_wrong(self) -> None:
        """What is wrong is named: the value, the pattern, the one that is there twice."""
        either = "expected seconds, or an object of host:port patterns and seconds, got "
        self.assertEqual(self.told("soon"), [either + "'soon'"])
        self.assertEqual(self.told(0), [either + "0"])
        self.assertEqual(self.told(None), [either + "null"])
        self.assertEqual(self.told([1]), [either + "[1]"])
        number = "expected a number > 0 and <= 86400 for "
        self.assertEqual(
            self.told(Members([("*", 0), ("a.example:443", "x"), ("b.example:443", 1)])),
            [number + "'*', got 0", number + "'a.example:443', got 'x'"],
        )
        self.assertEqual(self.told(Members([("*", 1), ("*", 2)])), ["expected each name once, got '*' more than once"])
        for pattern, reason in (("a.example", "expected host:port"), ("a.example:0", "is not within 1 to 65535")):
            (told,) = self.told(Members([(pattern, 1)]))
            self.assertIn(either, told)
            self.assertIn(f"{pattern!r} is not a pattern: ", told)
            self.assertIn(reason, told)

    def test_objects_elsewhere(self) -> None:
        """A key that takes no object refuses one as before."""
        limits = wanted(Limits, "idle_timeout")
        self.assertEqual(
            list(violations(Members([("*", 1)]), limits)), ["expected a number > 0 and <= 86400, got an object"]
        )


class ClientCertificateTests(SynchronousTestCase):
    """An object of patterns and objects: tls.client_certificates."""

    WANTED = wanted(Tls, "client_certificates")
    FILES = Members([("certificate_file", "/a.pem"), ("key_file", "/a.key")])

    def wrong(self, value: object) -> list[str]:
        """What is wrong with *value* as a source gives it."""
        return list(violations(plain(value, self.WANTED), self.WANTED))

    def test_right(self) -> None:
        """Patterns with both files are right, from JSON in the environment too; so is an empty object."""
        self.assertEqual(self.wrong(Members([("a.example:443", self.FILES), ("**.example:*", self.FILES)])), [])
        self.assertEqual(self.wrong(Members()), [])
        text = '{"a.example:443": {"certificate_file": "/a.pem", "key_file": "/a.key"}}'
        members = understand(text, self.WANTED)
        self.assertEqual(self.wrong(members), [])
        files = {"certificate_file": "/a.pem", "key_file": "/a.key"}
        self.assertEqual(plain(members, self.WANTED), {"a.example:443": files})

    def test_patterns(self) -> None:
        """A name that is no pattern is refused with the policy's reason, and so is a name that is there twice."""
        (told,) = self.wrong(Members([("a.example", self.FILES)]))
        self.assertTrue(told.startswith("expected an object of host:port patterns, each with certificate_file"), told)
        self.assertIn("'a.example' is not a pattern: ", told)
        twice = self.wrong(Members([("a.example:443", self.FILES), ("a.example:443", self.FILES)]))
        self.assertEqual(twice, ["expected each name once, got 'a.example:443' more than once"])

    def test_entries(self) -> None:
        """Each wrong member is named with its pattern: missing, unknown, twice, of another type."""
        for entry, expected in (
            (Members([("key_file", "/a")]), ["certificate_file is missing"]),
            (Members([*self.FILES, ("kye", "/a")]), ["expected certificate_file and key_file, got 'kye'"]),
            (Members([*self.FILES, ("key_file", "/a")]), ["expected each name once, got 'key_file' more than once"]),
            (
                Members([("certificate_file", 1), ("key_file", "a")]),
                [
                    "certificate_file: expected an absolute path, got 1",
                    "key_file: expected an absolute path, got 'a'",
                ],
            ),
            ("/a.pem", ["expected an object of certificate_file and key_file, got '/a.pem'"]),
        ):
            told = self.wrong(Members([("a.example:443", entry)]))
            self.assertEqual(told, [f"'a.example:443': {text}" for text in expected])

    def test_no_object(self) -> None:
        """Something else than an object is refused as a whole."""
        expected = "expected an object of host:port patterns, each with certificate_file and key_file, got "
        for value, shown in ((["x"], '["x"]'), ("x", "'x'"), (None, "null")):
            self.assertEqual(self.wrong(value), [expected + shown])

    def test_profile(self) -> None:
        """A word of a few, or null."""
        for value in ("webpki", "openssl", None):
            self.assertEqual(list(violations(value, wanted(Tls, "certificate_profile"))), [])
        expected = "expected 'openssl' or 'webpki' or null, got 'strict'"
        self.assertEqual(list(violations("strict", wanted(Tls, "certificate_profile"))), [expected])


class ForwardTests(SynchronousTestCase):
    """A list of objects: ingress.forwards."""

    WANTED = wanted(Ingress, "forwards")
    GOOD = Members([("listen", "0.0.0.0:443"), ("vsock", 5444), ("to", 443)])

    def wrong(self, value: object) -> list[str]:
        """What is wrong with *value* as a source gives it."""
        return list(violations(plain(value, self.WANTED), self.WANTED))

    def test_right(self) -> None:
        """Objects with what is required, from JSON in the environment too; so is an empty list."""
        self.assertEqual(self.wrong([self.GOOD, Members([*self.GOOD, ("proxy_protocol", "both")])]), [])
        self.assertEqual(self.wrong([]), [])
        members = understand('[{"listen": "[::]:443", "vsock": 5444, "to": 443, "proxy_protocol": null}]', self.WANTED)
        self.assertEqual(self.wrong(members), [])

    def test_entries(self) -> None:
        """Everything wrong is named with the entry's number, all at once."""
        address = "expected an IP address and a port such as 0.0.0.0:443 or [::]:443, got"
        told = self.wrong(
            [
                Members([("listen", "localhost:443"), ("vsock", 9000), ("to", 0)]),
                self.GOOD,
                Members([("listen", "::1:443"), ("vsock", 5444), ("tu", 443), ("proxy_protocol", "v2")]),
                Members([*self.GOOD, ("to", 1)]),
                "0.0.0.0:443",
            ]
        )
        port = "expected a vsock port other than 9000, got 9000"
        port += ": nitro-cli uses 9000 for the heartbeat of a starting enclave"
        fields = "listen and vsock and to and proxy_protocol"
        self.assertEqual(
            told,
            [
                f"entry 1: listen: {address} 'localhost:443'",
                f"entry 1: vsock: {port}",
                "entry 1: to: expected an integer 1..65535, got 0",
                f"entry 3: listen: {address} '::1:443': an IPv6 address stands in brackets",
                f"entry 3: expected {fields}, got 'tu'",
                "entry 3: proxy_protocol: expected 'accept' or 'both' or 'send' or null, got 'v2'",
                "entry 3: to is missing",
                "entry 4: expected each name once, got 'to' more than once",
                f"entry 5: expected an object of {fields}, got '0.0.0.0:443'",
            ],
        )

    def test_addresses(self) -> None:
        """An address and a port, in no odd spelling."""
        for text in ("0.0.0.0:1", "127.0.0.1:65535", "[::]:443", "[2001:db8::1]:443"):
            self.assertEqual(list(violations(text, wanted(IngressForward, "listen"))), [], text)
        for text in ("", ":443", "443", "0.0.0.0", "0.0.0.0:0", "0.0.0.0:65536", "0.0.0.0:+1", "[0.0.0.0]:1", "::1:1"):
            self.assertEqual(len(list(violations(text, wanted(IngressForward, "listen")))), 1, text)

    def test_no_list(self) -> None:
        """Something else than a list, or one that is too long, is refused as a whole."""
        for value, shown in (("x", "'x'"), (None, "null"), (Members(), "{}")):
            self.assertEqual(self.wrong(value), [f"expected a list of at most 64 objects, got {shown}"])
        [told] = self.wrong([self.GOOD] * 65)
        self.assertTrue(told.startswith("expected a list of at most 64 objects, got "), told)


class UpstreamProxyTests(SynchronousTestCase):
    """An object or null: egress.upstream_proxy."""

    WANTED = wanted(Egress, "upstream_proxy")

    def wrong(self, value: object) -> list[str]:
        """What is wrong with *value* as a source gives it."""
        return list(violations(plain(value, self.WANTED), self.WANTED))

    def test_right(self) -> None:
        """Null, and an object with a URL of HTTP; from JSON in the environment too."""
        self.assertEqual(self.wrong(None), [])
        for url in ("http://proxy.example:3128", "http://10.0.0.1:8080/", "HTTP://[2001:db8::1]:80"):
            self.assertEqual(self.wrong(Members([("url", url)])), [], url)
        text = '{"url": "http://a:1", "credentials_file": "/x", "no_proxy": ["**.example:*"]}'
        self.assertEqual(self.wrong(understand(text, self.WANTED)), [])

    def test_wrong(self) -> None:
        """Everything else is refused, with what to do where that is known."""
        expected = "url: expected a URL such as http://proxy.example:3128, got"
        for url, reason in (
            ("proxy.example:3128", ""),
            ("http://proxy.example", ""),
            ("https://proxy.example:3128", ": only http:// proxies are spoken to"),
            ("http://u:p@proxy.example:3128", ": credentials stand in credentials_file"),
            ("http://proxy.example:3128/path", ""),
        ):
            self.assertEqual(self.wrong(Members([("url", url)])), [f"{expected} {url!r}{reason}"], url)
        self.assertEqual(len(self.wrong(Members([("no_proxy", ["x"]), ("credentials_file", "x")]))), 3)
        told = self.wrong("http://a:1")
        self.assertEqual(told, ["expected an object of url and credentials_file and no_proxy, got 'http://a:1'"])
