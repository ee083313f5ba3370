"""Tests of `nitroproxy.config.values`."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.ends import Enclave, HostProxy, Transport
from nitroproxy.config.jsonc import Members
from nitroproxy.config.schema import Logging
from nitroproxy.config.traffic import Egress, Limits, Tls
from nitroproxy.config.values import plain, show, takes_list, understand, violations
from tests.configs import wanted


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
