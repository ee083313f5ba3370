"""`nitroproxy.tls.constraints`: wildcards against name constraints (CVE-2025-61727)."""

from __future__ import annotations

from ipaddress import ip_network

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

import nitroproxy.tls.constraints
from nitroproxy.tls.constraints import _above, check_wildcards
from nitroproxy.tls.reasons import Refused
from tests.tlsmemory import Authority


def constraints(permitted: list[str] | None = None, excluded: list[str] | None = None) -> x509.NameConstraints:
    return x509.NameConstraints(
        [x509.DNSName(name) for name in permitted] if permitted is not None else None,
        [x509.DNSName(name) for name in excluded] if excluded is not None else None,
    )


class ConstraintTests(SynchronousTestCase):
    """An authority's constraints and the names below it."""

    def setUp(self) -> None:
        self.root = Authority()

    def check(self, limits: x509.NameConstraints, *names: str) -> str | None:
        """Why a certificate for *names* below a constrained intermediate is refused; None when it is not."""
        below = Authority("intermediate", self.root, extra=[(limits, True)]).issue(*names)
        try:
            check_wildcards([below.certificate, *below.intermediates, self.root.certificate])
        except Refused as error:
            return str(error)
        return None

    def test_excluded(self) -> None:
        """A wildcard that covers an excluded name is refused, with wildcard, name and authority."""
        reason = self.check(constraints(excluded=["test.a.example"]), "b.example", "*.a.example")
        self.assertEqual(
            reason,
            "its name *.a.example covers test.a.example, which its authority must not vouch for "
            '(name constraints of "CN=intermediate")',
        )
        for excluded in ("a.example", "example", "", "TEST.A.Example", ".a.example"):
            self.assertIsNotNone(self.check(constraints(excluded=[excluded]), "*.a.example"), excluded)

    def test_excluded_elsewhere(self) -> None:
        """A wildcard that cannot cover what is excluded is accepted: other names, or more than one label below."""
        for excluded in ("test.b.example", "x.test.a.example", "xa.example", "org"):
            self.assertIsNone(self.check(constraints(excluded=[excluded]), "*.a.example"), excluded)

    def test_permitted(self) -> None:
        """A wildcard must lie within what is permitted."""
        for permitted, right in (
            (["a.example"], True),
            (["example"], True),
            (["", "x.test"], True),
            (["b.test"], False),
        ):
            self.assertIs(self.check(constraints(permitted), "*.a.example") is None, right, permitted)
        self.assertIn("covers more", self.check(constraints(["test.a.example"]), "*.a.example") or "")

    def test_other_kinds(self) -> None:
        """Constraints on addresses say nothing about wildcards, and names without a wildcard are OpenSSL's."""
        addresses = x509.NameConstraints([x509.IPAddress(ip_network("10.0.0.0/8"))], None)
        self.assertIsNone(self.check(addresses, "*.a.example"))
        self.assertIsNone(self.check(constraints(excluded=["a.example"]), "a.example", "192.0.2.1"))

    def test_long(self) -> None:
        """A wildcard longer than any name is refused before anything is made of its thousands of labels."""
        self.patch(nitroproxy.tls.constraints, "_above", self.fail)
        reason = self.check(constraints(permitted=["example"]), "*." + "a." * 500 + "example")
        self.assertEqual(reason, "it has a wildcard name of over 253 characters, which no name in the DNS has")

    def test_many(self) -> None:
        """Thousands of names against thousands of subtrees are looked up, not compared each with each."""
        excluded = [f"x{number}.example" for number in range(3000)]
        names = [f"*.n{number}.example" for number in range(3000)]
        compared = 0

        class Counted(str):
            """Counts comparisons."""

            def __eq__(self, other: object) -> bool:
                nonlocal compared
                compared += 1
                return super().__eq__(other)

            __hash__ = str.__hash__

        self.patch(nitroproxy.tls.constraints, "_above", lambda name: map(Counted, _above(name)))
        self.assertIsNone(self.check(constraints(excluded=excluded), *names))
        self.assertLess(compared, 20_000)
