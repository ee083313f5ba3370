"""`nitroproxy.tls.names`: whether a certificate is for a host, and what is said when it is not."""

from __future__ import annotations

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.tls.names import check_name, is_address
from nitroproxy.tls.reasons import Refused
from tests.tlsmemory import Authority


class NameTests(SynchronousTestCase):
    """Certificates and hosts."""

    def setUp(self) -> None:
        self.authority = Authority()

    def test_good(self) -> None:
        """A name, a wildcard for one label, an address of either family; an underscore below a wildcard, too."""
        certificate = self.authority.issue("a.example", "*.b.example", "192.0.2.1", "2001:db8::1").certificate
        for host in ("a.example", "x.b.example", "x_y.b.example", "192.0.2.1", "2001:db8::1"):
            check_name(certificate, host)

    def test_other_name(self) -> None:
        """A certificate for other names is refused with them, at most five."""
        certificate = self.authority.issue(*(f"{letter}.example" for letter in "abcdefg")).certificate
        for host in ("x.example", "192.0.2.1", "a.example.org", "x.a.example"):
            error = self.assertRaises(Refused, check_name, certificate, host)
            listed = "a.example, b.example, c.example, d.example, e.example and 2 more"
            self.assertEqual(str(error), f"it is not for {host}, but for {listed}")

    def test_no_names(self) -> None:
        """Without a subjectAltName it is refused: the CN is never read (RFC 9525 section 2)."""
        certificate = self.authority.issue(without=[x509.SubjectAlternativeName]).certificate
        error = self.assertRaises(Refused, check_name, certificate, "server")
        self.assertIn("its names cannot be used", str(error))

    def test_hostile_name(self) -> None:
        """What a certificate says reaches a message without control characters, and cut."""
        hostile = x509.DNSName._init_without_validation("a\nb" + "c" * 70_000)
        names = x509.SubjectAlternativeName([x509.RFC822Name("x@a.example"), hostile])
        certificate = self.authority.issue(extra=[(names, False)]).certificate
        error = self.assertRaises(Refused, check_name, certificate, "a.example")
        self.assertNotIn("\n", str(error))
        self.assertLess(len(str(error)), 300)

    def test_addresses(self) -> None:
        """Addresses are distinguished from names."""
        hosts = ("192.0.2.1", "2001:db8::1", "a.example", "1.example")
        self.assertEqual([is_address(host) for host in hosts], [True, True, False, False])
