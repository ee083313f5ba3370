"""Tests of `nitroproxy.config.values`."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.jsonc import Members
from nitroproxy.config.schema import (
    Credentials,
    Egress,
    Enclave,
    EnclaveForward,
    HostProxy,
    Ingress,
    IngressForward,
    Limits,
    Logging,
    Tls,
    Transport,
)
from nitroproxy.config.values import plain, show, takes_list, understand, violations


def wanted(section: type[msgspec.Struct], name: str) -> object:
    """The type of one key."""
    return next(field.type for field in msgspec.structs.fields(section) if field.name == name)


class UnderstandTests(SynchronousTestCase):
    """What a text from the environment or the command line means."""

    def test_numbers(self) -> None:
        """Numbers are read as JSON writes them, and what is none stays text."""
        port = wanted(HostProxy, "port")
        self.assertEqual(understand("8081", port), 8081)
        self.assertEqual(understand(" 8081\n", port), 8081)
        self.assertEqual(understand("0.5", wanted(Limits, "idle_timeout")), 0.5)
        for text in ("abc", "", "08", "0x1f", "1_000", "9" * 5000):
            self.assertEqual(understand(text, port), text)

    def test_booleans(self) -> None:
        """true, false, 1 and 0 are booleans in any case; nothing else is."""
        verify = wanted(Tls, "verify_certificates")
        for text, value in (("true", True), ("False", False), ("1", True), ("0", False)):
            self.assertIs(understand(text, verify), value)
        for text in ("yes", "2", ""):
            self.assertEqual(understand(text, verify), text)

    def test_choices(self) -> None:
        """One of several words is recognized in any case."""
        self.assertEqual(understand("debug", wanted(Logging, "level")), "DEBUG")
        self.assertEqual(understand("tlsv1.2", wanted(Tls, "min_version")), "TLSv1.2")
        self.assertEqual(understand("loud", wanted(Logging, "level")), "loud")

    def test_strings(self) -> None:
        """A string may be bare or in JSON's quotes, even where it would be JSON of another type."""
        directory = wanted(Transport, "directory")
        self.assertEqual(understand("/run/x", directory), "/run/x")
        self.assertEqual(understand('"/run/x"', directory), "/run/x")
        self.assertEqual(understand("1", directory), "1")

    def test_null(self) -> None:
        """null is null where that is allowed."""
        self.assertIsNone(understand("null", wanted(Tls, "ca_file")))
        self.assertEqual(understand("/ca.pem", wanted(Tls, "ca_file")), "/ca.pem")

    def test_lists(self) -> None:
        """A list is JSON, or bare items between commas; an empty text is no list."""
        allow = wanted(Egress, "allow")
        self.assertEqual(understand('["a:1", "b:2"]', allow), ["a:1", "b:2"])
        self.assertEqual(understand("a:1, b:2", allow), ["a:1", "b:2"])
        self.assertEqual(understand("a:1", allow), ["a:1"])
        self.assertEqual(understand("[]", allow), [])
        self.assertEqual(understand("", allow), "")
        self.assertEqual(understand('["a:1"', allow), '["a:1"')


class ViolationsTests(SynchronousTestCase):
    """The errors of wrong values."""

    def assert_reported(self, section: type[msgspec.Struct], name: str, value: object, *expected: str) -> None:
        """What is wrong with *value* is reported as *expected*."""
        self.assertEqual(list(violations(value, wanted(section, name))), list(expected))

    def test_integer(self) -> None:
        """An integer outside its limits, or of another type, is reported with the limits; at the limits it is right."""
        expected = "expected an integer 1..65535, got "
        for value, shown in (
            (0, "0"),
            (65536, "65536"),
            ("abc", "'abc'"),
            (True, "true"),
            (8080.0, "8080.0"),
            (None, "null"),
        ):
            self.assert_reported(HostProxy, "port", value, expected + shown)
        for value in (1, 65535):
            self.assert_reported(HostProxy, "port", value)

    def test_lower_limit_only(self) -> None:
        """A number without an upper limit is reported without one."""
        self.assert_reported(Enclave, "memory_mb", 63, "expected an integer >= 64, got 63")

    def test_seconds(self) -> None:
        """Times are positive and finite; integers will do."""
        expected = "expected a number > 0 and <= 86400, got "
        for value, shown in ((0, "0"), (-1.5, "-1.5"), (float("inf"), "Infinity"), (float("nan"), "NaN"), ("1", "'1'")):
            self.assert_reported(Limits, "idle_timeout", value, expected + shown)
        self.assert_reported(Limits, "idle_timeout", 1)
        self.assert_reported(HostProxy, "retry_delay", 0)
        self.assert_reported(HostProxy, "retry_delay", -0.1, "expected a number 0..86400, got -0.1")

    def test_boolean(self) -> None:
        """A boolean is true or false and no number."""
        self.assert_reported(Tls, "allow_plaintext", 1, "expected true or false, got 1")

    def test_choice(self) -> None:
        """A word that is not one of the allowed ones is reported with them."""
        self.assert_reported(Transport, "kind", "tcp", "expected 'hybrid' or 'unix' or 'vsock', got 'tcp'")

    def test_rules(self) -> None:
        """Strings obey the rule of their key: paths are absolute, interfaces are addresses."""
        self.assert_reported(Transport, "directory", "run", "expected an absolute path, got 'run'")
        self.assert_reported(Transport, "directory", "/a\0b", "expected an absolute path, got '/a\\x00b'")
        self.assert_reported(Tls, "ca_file", "ca.pem", "expected an absolute path or null, got 'ca.pem'")
        self.assert_reported(HostProxy, "interface", "localhost", "expected an IP address, got 'localhost'")
        for section, name, value in (
            (Transport, "directory", "/run"),
            (Tls, "ca_file", None),
            (HostProxy, "interface", "::1"),
        ):
            self.assert_reported(section, name, value)

    def test_vsock_ports(self) -> None:
        """9000 is nitro-cli's, the host's ports are unprivileged, and the wildcard port is none."""
        heartbeat = "got 9000: nitro-cli uses 9000 for the heartbeat of a starting enclave"
        for section in (Enclave, Egress):
            self.assert_reported(section, "port", 9000, f"expected a vsock port other than 9000, {heartbeat}")
        self.assert_reported(Egress, "port", 1023, "expected an integer 1024..4294967294, got 1023")
        self.assert_reported(Enclave, "port", 0, "expected an integer 1..4294967294, got 0")
        self.assert_reported(Enclave, "port", 4294967295, "expected an integer 1..4294967294, got 4294967295")

    def test_lists(self) -> None:
        """Each wrong item of a list is reported, and a list of something else as a whole."""
        self.assert_reported(Egress, "allow_addresses", ["10.0.0.0/8", "::1"])
        reported = list(violations(["10.0.0.1/8", "::1", "x"], wanted(Egress, "allow_addresses")))
        self.assertEqual(
            [text.split(":")[0] for text in reported],
            [
                "expected a network such as 10.0.0.0/8, got '10.0.0.1/8'",
                "expected a network such as 10.0.0.0/8, got 'x'",
            ],
        )
        self.assert_reported(Egress, "allow", "*:443", "expected a list of strings, got '*:443'")
        self.assert_reported(Egress, "allow", [443], "expected a list of strings, got [443]")

    def test_patterns(self) -> None:
        """A pattern that the policy refuses is refused, with the policy's reason."""
        (reported,) = violations(["*:443", "example.org:99999"], wanted(Egress, "allow"))
        self.assertTrue(reported.startswith("expected a host:port pattern, got 'example.org:99999': "), reported)
        self.assert_reported(Egress, "deny", [])


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

    def test_of_the_enclave(self) -> None:
        """Those of the enclave listen on loopback, and lead to a host and a port."""
        listen, to = wanted(EnclaveForward, "listen"), wanted(EnclaveForward, "to")
        for text in ("127.0.0.1:5432", "127.9.9.9:1", "[::1]:5432"):
            self.assertEqual(list(violations(text, listen)), [], text)
        expected = "expected a loopback address and a port such as 127.0.0.1:5432 or [::1]:5432, got"
        reason = "whoever reaches it uses the forward as the application does"
        self.assertEqual(list(violations("0.0.0.0:1", listen)), [f"{expected} '0.0.0.0:1': {reason}"])
        self.assertEqual(list(violations("localhost:1", listen)), [f"{expected} 'localhost:1'"])
        for text in ("db.example:5432", "192.0.2.1:1", "[2001:db8::1]:65535", "b\u00fccher.example:1"):
            self.assertEqual(list(violations(text, to)), [], text)
        for text in (
            "db.example",
            ":1",
            "db.example:0",
            "db.example:65536",
            "127.1:1",
            "*.example:1",
            "a b:1",
            "::1:1",
        ):
            self.assertEqual(len(list(violations(text, to))), 1, text)

    def test_no_list(self) -> None:
        """Something else than a list, or one that is too long, is refused as a whole."""
        for value, shown in (("x", "'x'"), (None, "null"), (Members(), "{}")):
            self.assertEqual(self.wrong(value), [f"expected a list of at most 64 objects, got {shown}"])
        [told] = self.wrong([self.GOOD] * 65)
        self.assertTrue(told.startswith("expected a list of at most 64 objects, got "), told)


class StructTests(SynchronousTestCase):
    """An object with keys of its own: enclave.transparent."""

    WANTED = wanted(Enclave, "transparent")

    def wrong(self, value: object) -> list[str]:
        """What is wrong with *value* as a source gives it."""
        return list(violations(plain(value, self.WANTED), self.WANTED))

    def test_right(self) -> None:
        """All of its keys, some, or none; from JSON in the environment too."""
        for value in (Members([("enabled", True), ("dns", False)]), Members([("dns", True)]), Members()):
            self.assertEqual(self.wrong(value), [])
        self.assertEqual(plain(understand('{"enabled": true}', self.WANTED), self.WANTED), {"enabled": True})

    def test_wrong(self) -> None:
        """Each wrong key is named: unknown, twice, of another type; and what is no object is refused as a whole."""
        for value, expected in (
            (Members([("enabeld", True)]), "expected enabled and dns, got 'enabeld'"),
            (Members([("dns", True), ("dns", True)]), "expected each name once, got 'dns' more than once"),
            (Members([("dns", "yes")]), "dns: expected true or false, got 'yes'"),
            (True, "expected an object of enabled and dns, got true"),
            (None, "expected an object of enabled and dns, got null"),
        ):
            self.assertEqual(self.wrong(value), [expected])


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


class ShowTests(SynchronousTestCase):
    """How values are shown."""

    def test_one_line(self) -> None:
        """A value takes one line, with any content."""
        self.assertEqual(show("a\nb"), "'a\\nb'")
        self.assertEqual(show(["a\nb", None]), '["a\\nb", null]')
        self.assertEqual(show(Members([("a", 1)])), "an object")
        self.assertEqual(show([Members([("a", 1)])]), '[[["a", 1]]]')

    def test_length(self) -> None:
        """A long value is cut."""
        self.assertEqual(show("x" * 100), "'" + "x" * 78 + "…")


class TakesListTests(SynchronousTestCase):
    """Which keys take a list."""

    def test_lists(self) -> None:
        """The lists of the egress section are recognized, and a string is none."""
        self.assertTrue(takes_list(wanted(Egress, "deny")))
        self.assertFalse(takes_list(wanted(Tls, "ca_file")))


class CredentialsTests(SynchronousTestCase):
    """The keys of the section credentials."""

    def refused(self, name: str, value: object) -> bool:
        """Whether *value* is."""
        return bool(list(violations(value, wanted(Credentials, name))))

    def test_role(self) -> None:
        """The name of a role as IAM allows it, which becomes part of a path."""
        for right in (None, "r", "my-role", "a_b+c=d,e.f@g", "R" * 64):
            self.assertFalse(self.refused("role", right), right)
        wrong: tuple[object, ...] = (
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a\r\n",
            "ä",
            "R" * 65,
            "?x",
            "%2e",
            1,
            "arn:aws:iam::1:role/r",
        )
        for value in wrong:
            self.assertTrue(self.refused("role", value), value)
        [problem] = violations("arn:aws:iam::1:role/r", wanted(Credentials, "role"))
        self.assertIn("an ARN or an instance profile is not it", problem)

    def test_metadata_url(self) -> None:
        """http and an IP address, perhaps with a port; nothing that a name, a path or a user could be hidden in."""
        for right in ("http://169.254.169.254", "http://[fd00:ec2::254]", "http://127.0.0.1:1338"):
            self.assertFalse(self.refused("metadata_url", right), right)
        wrong: tuple[object, ...] = (
            *("https://169.254.169.254", "http://", "169.254.169.254", "http://metadata.example", "http://1.2.3.4/"),
            *("http://1.2.3.4/x", "http://u@1.2.3.4", "http://1.2.3.4:", "http://1.2.3.4:0", "http://1.2.3.4:70000"),
            *("http://1.2.3.4?x", "http://1.2.3.4#x", "http://[1.2.3.4]", "http://[::1", "HTTP://1.2.3.4", None, 1),
        )
        for value in wrong:
            self.assertTrue(self.refused("metadata_url", value), value)

    def test_token_sha256(self) -> None:
        """64 digits, as sha256sum prints them."""
        self.assertFalse(self.refused("token_sha256", "0123456789abcdef" * 4))
        for value in ("", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "٠" * 64, 1):
            self.assertTrue(self.refused("token_sha256", value), value)
