"""What may be reached: the pattern language and the address guard (S12, S13)."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.policy import AddressGuard, ByPattern, PatternError, Policy

LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True).filter(lambda label: "--" not in label)
NAMES = st.lists(LABELS, min_size=1, max_size=5)
PORTS = st.integers(1, 65535)

#: Pattern, host, port, whether it matches.
MATCHES = [
    ("*:443", "a.example", 443, True),
    ("*:443", "203.0.113.1", 443, True),
    ("*:443", "a.example", 80, False),
    ("*:*", "a.example", 1, True),
    ("a.example:443", "a.example", 443, True),
    ("A.Example.:443", "a.example", 443, True),
    ("a.example:443", "b.a.example", 443, False),
    ("a.example:443", "a.example.org", 443, False),
    ("*.example:443", "a.example", 443, True),
    ("*.example:443", "a.b.example", 443, False),
    ("*.example:443", "example", 443, False),
    ("a.*.example:443", "a.b.example", 443, True),
    ("**.example:443", "a.b.example", 443, True),
    ("**.example:443", "example", 443, False),
    ("**.example:443", "aexample", 443, False),
    ("a.example:8000-8010", "a.example", 8000, True),
    ("a.example:8000-8010", "a.example", 8010, True),
    ("a.example:8000-8010", "a.example", 8011, False),
    ("bücher.example:443", "xn--bcher-kva.example", 443, True),
    ("10.0.0.0/8:443", "10.1.2.3", 443, True),
    ("10.0.0.0/8:443", "11.1.2.3", 443, False),
    ("10.0.0.0/8:443", "a.example", 443, False),
    ("10.1.2.3:443", "10.1.2.3", 443, True),
    ("10.1.2.3:443", "10.1.2.4", 443, False),
    ("[2001:db8::/32]:443", "2001:db8::1", 443, True),
    ("[2001:db8::1]:443", "2001:db8::1", 443, True),
    ("0.0.0.0/0:443", "2001:db8::1", 443, False),
    ("*.0.0.1:443", "127.0.0.1", 443, False),
    ("x--any--x.example:443", "a.example", 443, False),
    ("x.example:443", "a.example", 443, False),
]
MALFORMED = [
    "",
    "a.example",
    "a.example:",
    "a.example:x",
    "a.example:0",
    "a.example:65536",
    "a.example:20-10",
    ":443",
    "a*.example:443",
    "*.a\u3002b:443",
    "a.**.example:443",
    "**:443",
    "127.1:443",
    "10.0.0.1/8:443",
    "10.0.0.0/33:443",
    "::1:443",
    "[::1:443",
    "a b:443",
    "https://a.example:443",
]


class PolicyTests(SynchronousTestCase):
    """Patterns over names and ports."""

    def test_matches(self) -> None:
        """Each pattern allows what it describes and nothing else; as a deny rule it forbids exactly that."""
        for pattern, host, port, expected in MATCHES:
            if pattern.startswith("*.0."):
                self.assertRaises(PatternError, Policy, [pattern])
                continue
            self.assertIs(Policy([pattern]).decide(host, port).allowed, expected, pattern)
            self.assertIs(Policy(["*:*"], [pattern]).decide(host, port).allowed, not expected, pattern)

    def test_malformed(self) -> None:
        """A pattern with a wrong syntax is refused, naming it."""
        for pattern in MALFORMED:
            error = self.assertRaises(PatternError, Policy, [], [pattern])
            self.assertEqual(error.pattern, pattern)

    def test_explained(self) -> None:
        """A refusal names the rule, or says that there is none."""
        policy = Policy(["*:443"], ["**.bad.example:*"])
        policy.check("good.example", 443)
        error = self.assertRaises(ProxyError, policy.check, "very.bad.example", 443)
        self.assertIs(error.kind, Kind.DESTINATION_DENIED)
        self.assertIn("**.bad.example:*", error.detail)
        error = self.assertRaises(ProxyError, policy.check, "good.example", 22)
        self.assertIs(error.kind, Kind.DESTINATION_NOT_ALLOWED)
        self.assertIn("egress.allow", error.detail)

    @settings(deadline=None, derandomize=True, max_examples=300)
    @given(
        st.lists(st.tuples(st.sampled_from(["a.example", "*"]), PORTS, st.integers(0, 9)), max_size=4),
        st.lists(st.tuples(st.sampled_from(["a.example", "*"]), PORTS, st.integers(0, 9)), max_size=4),
    )
    def test_any_port(self, allow: list[tuple[str, int, int]], deny: list[tuple[str, int, int]]) -> None:
        """There is no reason against a host if, and only if, one of its ports is allowed."""

        def rules(given: list[tuple[str, int, int]]) -> list[str]:
            # Near each other, so that they overlap.
            return [f"{host}:{port % 30 + 1}-{port % 30 + 1 + more}" for host, port, more in given]

        policy = Policy(rules(allow), rules(deny))
        allowed = any(policy.decide("a.example", port).allowed for port in range(1, 50))
        self.assertEqual(policy.reason_against("a.example") == "", allowed)

    def test_reasons(self) -> None:
        """The reason names the rule that denies, or says that none allows; the highest port counts, too."""
        policy = Policy(["a.example:1-65535", "*:443"], ["a.example:*", "b.example:400-500", "c.example:1-65534"])
        self.assertIn("'a.example:*' of egress.deny", policy.reason_against("a.example"))
        self.assertIn("'b.example:400-500' of egress.deny", policy.reason_against("b.example"))
        self.assertIn("no rule of egress.allow", Policy(["x.example:*"]).reason_against("a.example"))
        self.assertEqual(Policy(["*:*"], ["c.example:1-65534"]).reason_against("c.example"), "")
        self.assertEqual(policy.reason_against("192.0.2.1"), "")

    def test_spelled(self) -> None:
        """Only a rule with the very name gives it, not a wildcard."""
        policy = Policy(["Intern:80", "*:443", "**.deep:*", "*.wild:*"])
        found = [host for host in ("intern", "other", "deep", "x.deep", "a.wild") if policy.spells(host)]
        self.assertEqual(found, ["intern"])

    def test_fingerprint(self) -> None:
        """Equal rules have equal fingerprints, in any order and spelling; different rules have different ones."""
        one = Policy(["*:443", "A.example:80"], [])
        self.assertEqual(one.fingerprint, Policy(["a.example.:80", "*:443"], []).fingerprint)
        self.assertNotEqual(one.fingerprint, Policy(["*:443"], ["a.example:80"]).fingerprint)


class ByPatternTests(SynchronousTestCase):
    """Values by destination, of which the most specific pattern's counts."""

    #: From the most specific to the least, with a destination that each one and all below it match.
    ORDERS = (
        (
            "a.b.example",
            ("a.b.example:443", "*.b.example:443", "**.b.example:443", "a.*.example:443", "**.example:443"),
        ),
        ("a.b.example", ("*.b.example:443", "*.b.example:400-500", "*.b.example:*", "*:443", "*:1-1000", "*")),
        ("192.0.2.1", ("192.0.2.1:443", "192.0.2.0/28:443", "192.0.0.0/16:443", "*:443", "*:*")),
        ("2001:db8::1", ("[2001:db8::1]:443", "[2001:db8::/32]:443", "*")),
    )

    def test_most_specific(self) -> None:
        """Whatever the order in which they are written, and whichever of them are missing."""
        for host, patterns in self.ORDERS:
            for first in range(len(patterns)):
                for turned in (patterns[first:], patterns[first:][::-1]):
                    by_pattern = ByPattern({pattern: pattern for pattern in turned}, "default")
                    self.assertEqual(by_pattern.of(host, 443), patterns[first], turned)

    def test_default(self) -> None:
        """A destination that no pattern matches has the default, and so has each where there is none."""
        by_pattern = ByPattern({"a.example:443": 1}, 2)
        found = [by_pattern.of(*key) for key in (("a.example", 443), ("a.example", 80), ("b.example", 443))]
        self.assertEqual(found, [1, 2, 2])
        self.assertEqual(ByPattern({}, 2).of("a.example", 443), 2)
        self.assertEqual(sorted(by_pattern.values), [1, 2])

    def test_malformed(self) -> None:
        """A pattern that cannot be read is refused by name, and so is one that is there in another spelling."""
        for pattern in MALFORMED:
            if pattern != "*":
                error = self.assertRaises(PatternError, ByPattern, {"*": 1, pattern: 2}, 3)
                self.assertEqual(error.pattern, pattern)
        for one, other in (("A.example:443", "a.example.:443"), ("*", "*:*"), ("*:1-65535", "*:*")):
            error = self.assertRaises(PatternError, ByPattern, {one: 1, other: 2}, 3)
            self.assertEqual(error.pattern, other)


#: Networks that the guard refuses: their first and last addresses are tried.
REFUSED_NETWORKS = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/32",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    "4000::/3",
    "fd00:ec2::254/128",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
]
PUBLIC += ["192.167.255.255", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888"]


class AddressGuardTests(SynchronousTestCase):
    """Addresses that are not the public internet."""

    def test_refused(self) -> None:
        """The first and the last address of every special network are refused."""
        guard = AddressGuard([], frozenset)
        for text in REFUSED_NETWORKS:
            network = ip_network(text)
            for address in (network[0], network[-1]):
                error = self.assertRaises(ProxyError, guard.check, str(address))
                self.assertIs(error.kind, Kind.ADDRESS_DENIED)

    def test_public(self) -> None:
        """The neighbours of those networks are not."""
        guard = AddressGuard([], frozenset)
        for address in PUBLIC:
            guard.check(address)

    def test_own(self) -> None:
        """The host's own public address is refused."""
        guard = AddressGuard([], lambda: {"52.1.2.3"})
        self.assertIn("this host", self.assertRaises(ProxyError, guard.check, "52.1.2.3").detail)
        guard.check("52.1.2.4")

    def test_exempt(self) -> None:
        """An exempt network is allowed, and only it: not the IPv6 addresses that embed its own."""
        guard = AddressGuard(["127.0.0.0/8"], lambda: {"127.0.0.1"})
        guard.check("127.0.0.1")
        for address in ("::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "10.0.0.1"):
            self.assertRaises(ProxyError, guard.check, address)

    def test_scope(self) -> None:
        """A public address with a zone is refused: the zone would choose the interface (RFC 4007 section 11)."""
        guard = AddressGuard([], frozenset)
        self.assertIn("scoped", self.assertRaises(ProxyError, guard.check, "2606:4700::1%eth0").detail)

    def test_metadata_by_name(self) -> None:
        """The refusal of the metadata service's address names it."""
        guard = AddressGuard([], frozenset)
        self.assertIn("metadata", self.assertRaises(ProxyError, guard.check, "169.254.169.254").detail)

    def test_credentials_never(self) -> None:
        """What gives credentials to whoever asks is in no exempt network, however it is written; others there are."""
        guard = AddressGuard(["0.0.0.0/0", "::/0"], frozenset)
        for address in (
            *("169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "FD00:EC2:0::254"),
            *("169.254.170.2", "169.254.170.23", "::ffff:a9fe:aa02", "fd00:ec2::23"),
        ):
            self.assertRaises(ProxyError, guard.check, address)
        for address in ("169.254.169.253", "169.254.169.123", "fd00:ec2::253", "10.0.0.1", "::ffff:10.0.0.1"):
            guard.check(address)


class PropertyTests(SynchronousTestCase):
    """Properties that hold for all names and ports."""

    @settings(deadline=None, derandomize=True, max_examples=200)
    @given(NAMES, PORTS, st.data())
    def test_star_is_one_label(self, labels: list[str], port: int, data: st.DataObject) -> None:
        """A name with a star for one label matches the name, and neither a longer nor a shorter one."""
        starred = data.draw(st.integers(0, len(labels) - 1))
        pattern = ".".join("*" if i == starred else label for i, label in enumerate(labels))
        if pattern == "*":
            pattern = "*.example"
            labels = [*labels, "example"]
        policy = Policy([f"{pattern}:{port}"])
        self.assertTrue(policy.decide(".".join(labels), port).allowed)
        self.assertFalse(policy.decide(".".join([*labels, "x"]), port).allowed)
        self.assertFalse(policy.decide(".".join(["x", *labels]), port).allowed)
        self.assertFalse(policy.decide(".".join(labels), port % 65535 + 1).allowed)

    @settings(deadline=None, derandomize=True, max_examples=200)
    @given(NAMES, NAMES, PORTS)
    def test_any_depth(self, below: list[str], name: list[str], port: int) -> None:
        """**. matches every name below, but not the name itself nor one that only ends in the same letters."""
        policy = Policy([f"**.{'.'.join(name)}:*"])
        self.assertTrue(policy.decide(".".join([*below, *name]), port).allowed)
        self.assertFalse(policy.decide("x" + ".".join(name), port).allowed)
        self.assertEqual(policy.decide(".".join(name), port).allowed, False)

    @settings(deadline=None, derandomize=True, max_examples=200)
    @given(st.lists(NAMES, max_size=3), st.lists(NAMES, max_size=3), NAMES, PORTS)
    def test_deny_only_takes_away(
        self, allow: list[list[str]], deny: list[list[str]], name: list[str], port: int
    ) -> None:
        """More deny rules never allow anything; what one of them matches is never allowed."""
        allowed = ["*:443", *(f"{'.'.join(labels)}:*" for labels in allow)]
        denied = [f"**.{'.'.join(labels)}:*" for labels in deny]
        host = ".".join(name)
        if Policy(allowed, denied).decide(host, port).allowed:
            self.assertTrue(Policy(allowed).decide(host, port).allowed)
        self.assertFalse(Policy(allowed, [*denied, f"{host}:*"]).decide(host, port).allowed)

    def test_fingerprint(self) -> None:
        """Fingerprints are equal for equal rules, in any order and spelling, and different otherwise."""
        one = Policy(["A.example.:443", "*:80"], ["b.example:*"]).fingerprint
        self.assertEqual(Policy(["*:80", "a.example:443"], ["b.example:*"]).fingerprint, one)
        for allow, deny in ((["*:80"], ["b.example:*"]), (["*:80", "a.example:443"], []), (["b.example:*"], ["*:80"])):
            self.assertNotEqual(Policy(allow, deny).fingerprint, one)
