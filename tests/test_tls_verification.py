"""`nitroproxy.tls.verification`: the verdict on a chain, how long it is remembered, and that any doubt refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import certifi
from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

import nitroproxy.tls.verification
from nitroproxy.tls.client import TLSClient
from nitroproxy.tls.names import check_name
from nitroproxy.tls.reasons import Refused
from nitroproxy.tls.settings import TLSSettings
from nitroproxy.tls.webpki import WebPKI
from tests.tlsmemory import DAY, NOW, Authority, Identity, MemoryServer

WALL = NOW.timestamp()


class VerificationCase(SynchronousTestCase):
    """A client with clocks of its own, that resumes nothing: each server is another port's."""

    def setUp(self) -> None:
        self.root = Authority()
        self.now, self.wall = 0.0, WALL
        self.port = 1000
        self.checked: list[str] = []
        genuine = check_name

        def count(certificate: x509.Certificate, host: str) -> None:
            self.checked.append(host)
            genuine(certificate, host)

        self.patch(nitroproxy.tls.verification, "check_name", count)

    def pem_file(self, *authorities: Authority) -> str:
        path = Path(self.mktemp()).absolute()
        path.write_bytes(b"".join(authority.pem for authority in authorities))
        return str(path)

    def client(self, **settings: Any) -> TLSClient:
        chosen = {"ca_file": self.pem_file(self.root)} | settings
        return TLSClient(TLSSettings(**chosen), now=lambda: self.now, wall=lambda: self.wall)

    def accept(self, client: TLSClient, identity: Identity, host: str = "a.example") -> None:
        self.port += 1
        MemoryServer(identity).accepted(client, host, self.port)

    def refuse(self, client: TLSClient, identity: Identity, host: str = "a.example") -> str:
        self.port += 1
        return MemoryServer(identity).refused(client, host, self.port)


class VerdictTests(VerificationCase):
    """What is remembered."""

    def test_remembered(self) -> None:
        """A chain that was accepted for a host is not looked at again."""
        client, identity = self.client(), self.root.issue()
        for _ in range(3):
            self.accept(client, identity)
        self.assertEqual(self.checked, ["a.example"])

    def test_for_this_host(self) -> None:
        """A verdict counts for its host alone."""
        client, identity = self.client(), self.root.issue("a.example", "b.example")
        for host in ("a.example", "b.example", "a.example"):
            self.accept(client, identity, host)
        self.assertIn("not for c.example", self.refuse(client, identity, "c.example"))
        self.assertEqual(self.checked, ["a.example", "b.example", "c.example"])

    def test_for_the_whole_chain(self) -> None:
        """A verdict counts for the whole chain as sent: another certificate, or another intermediate, is another."""
        client, identity = self.client(), Authority("middle", self.root).issue()
        self.accept(client, identity)
        other = Identity(identity.certificate, identity.key, (*identity.intermediates, self.root.certificate))
        self.accept(client, other)
        self.accept(client, Authority("middle", self.root).issue())
        self.assertEqual(len(self.checked), 3)
        self.accept(client, other)
        self.assertEqual(len(self.checked), 3)

    def test_no_refusal_is_remembered(self) -> None:
        """A refused chain is looked at each time."""
        client, identity = self.client(), self.root.issue("b.example")
        for _ in range(2):
            self.refuse(client, identity)
        self.assertEqual(len(self.checked), 2)

    def test_an_hour(self) -> None:
        """A verdict holds for an hour of the monotonic clock, whatever the wall clock does."""
        client, identity = self.client(), self.root.issue()
        self.accept(client, identity)
        self.now, self.wall = 3599.0, WALL - 1e6
        self.accept(client, identity)
        self.assertEqual(len(self.checked), 1)
        self.now = 3600.0
        self.accept(client, identity)
        self.assertEqual(len(self.checked), 2)

    def test_not_after(self) -> None:
        """A verdict never outlives the first certificate of the chain to expire, be it an authority's."""
        for identity in (
            self.root.issue(not_after=NOW + DAY),
            Authority("middle", self.root, not_after=NOW + DAY).issue(),
        ):
            self.checked.clear()
            self.wall = WALL
            client = self.client()
            self.accept(client, identity)
            self.wall = WALL + 86399
            self.accept(client, identity)
            self.assertEqual(len(self.checked), 1)
            self.wall = WALL + 86400
            self.accept(client, identity)  # by OpenSSL's clock, which is not the test's, it is still good
            self.assertEqual(len(self.checked), 2)

    def test_bounded(self) -> None:
        """Of too many verdicts the one that was not needed for longest is forgotten."""
        self.patch(nitroproxy.tls.verification, "_VERDICTS", 2)
        client = self.client()
        a, b, c = (self.root.issue() for _ in range(3))
        for identity in (a, b, a, c, a, b):
            self.accept(client, identity)
        self.assertEqual(len(self.checked), 4)  # a, b, c, and b again

    def test_new_generation(self) -> None:
        """A client with new anchors knows no verdict of the old one's."""
        identity = self.root.issue()
        self.accept(self.client(), identity)
        self.accept(self.client(), identity)
        self.assertEqual(len(self.checked), 2)
        self.refuse(self.client(ca_file=self.pem_file(Authority())), identity)


class ProfileTests(VerificationCase):
    """Which profile a chain has to conform to."""

    def setUp(self) -> None:
        super().setUp()
        self.private = self.root.issue(without=[x509.AuthorityKeyIdentifier])

    def test_by_file(self) -> None:
        """A private authority's certificate need not conform, in ca_file or extra_ca_file; unless it is asked for."""
        path = self.pem_file(self.root)
        self.accept(self.client(), self.private)
        self.accept(self.client(ca_file=None, extra_ca_file=path), self.private)
        for settings in ({"ca_file": path}, {"ca_file": None, "extra_ca_file": path}):
            detail = self.refuse(self.client(**settings, profile="webpki"), self.private)
            self.assertIn('tls.certificate_profile "webpki" asks for that; "openssl" does not', detail)

    def test_built_in(self) -> None:
        """A chain to a built-in root has to conform, also beside an extra_ca_file; unless openssl is asked for."""
        self.patch(certifi, "where", lambda: self.pem_file(self.root))
        self.accept(self.client(ca_file=None), self.root.issue())
        extra = self.pem_file(Authority("other"))
        for settings in ({}, {"extra_ca_file": extra}):
            self.assertIn("webpki", self.refuse(self.client(ca_file=None, **settings), self.private))
        self.accept(self.client(ca_file=None, profile="openssl"), self.private)

    def test_beside_each_other(self) -> None:
        """With both, each chain conforms to the profile of its own anchor."""
        self.patch(certifi, "where", lambda: self.pem_file(self.root))
        other = Authority("other")
        client = self.client(ca_file=None, extra_ca_file=self.pem_file(other))
        self.accept(client, other.issue(without=[x509.AuthorityKeyIdentifier]))
        self.accept(client, self.root.issue())
        self.refuse(client, self.private)

    def test_wildcards_in_both(self) -> None:
        """Wildcards are held to name constraints in both profiles (CVE-2025-61727)."""
        excluded = x509.NameConstraints(None, [x509.DNSName("test.a.example")])
        identity = Authority("middle", self.root, extra=[(excluded, True)]).issue("*.a.example")
        for profile in ("openssl", "webpki"):
            detail = self.refuse(self.client(profile=profile), identity, "x.a.example")
            self.assertIn("covers test.a.example", detail)

    def test_intermediate_as_anchor(self) -> None:
        """An intermediate certificate may be the anchor, without its root (PARTIAL_CHAIN)."""
        middle = Authority("middle", self.root)
        for profile in (None, "openssl", "webpki"):
            self.accept(self.client(ca_file=self.pem_file(middle), profile=profile), middle.issue())
        self.refuse(self.client(ca_file=self.pem_file(middle)), self.root.issue())


class FailClosedTests(VerificationCase):
    """Any exception refuses (S14, S15)."""

    def break_part(self, holder: object, name: str, error: BaseException) -> Any:
        """Let *name* of *holder* raise *error*; returns what restores it."""

        def broken(*arguments: object) -> None:
            raise error

        return self.patch(holder, name, broken)

    def test_any_exception(self) -> None:
        """An exception anywhere refuses, is logged with its traceback, and is not remembered."""

        class Panic(BaseException):
            """As the library's Rust raises."""

        client, identity = self.client(profile="webpki"), self.root.issue()
        for holder, name in (
            (nitroproxy.tls.verification, "sha256"),
            (nitroproxy.tls.verification, "check_wildcards"),
            (WebPKI, "check"),
            (WebPKI, "_ask_second"),
            (client._clocks, "verdict"),
        ):
            for error in (TypeError("a bug"), MemoryError(), Panic()):
                patched = self.break_part(holder, name, error)
                detail = self.refuse(client, identity)
                self.assertIn(f"verifying it failed: {type(error).__name__}", detail)
                self.assertEqual(len(self.flushLoggedErrors(type(error))), 1)
                patched.restore()
        self.accept(client, identity)

    def test_interrupt(self) -> None:
        """An interrupt of the process is passed on, and nothing is accepted."""
        self.break_part(nitroproxy.tls.verification, "check_wildcards", KeyboardInterrupt())
        self.assertRaises(KeyboardInterrupt, MemoryServer(self.root.issue()).connect, self.client())

    def test_unreadable(self) -> None:
        """A certificate that cannot be read is the destination's fault: refused with the reason, no traceback."""
        for error in (ValueError("bad ASN.1"), x509.DuplicateExtension("twice", x509.ObjectIdentifier("1.2.3"))):
            patched = self.break_part(nitroproxy.tls.verification, "check_wildcards", error)
            self.assertIn(f"it cannot be read: {error}", self.refuse(self.client(), self.root.issue()))
            patched.restore()

    def test_refused_by_a_part(self) -> None:
        """The reason of a part reaches the detail, with the host."""
        self.break_part(nitroproxy.tls.verification, "check_wildcards", Refused("of this"))
        detail = self.refuse(self.client(), self.root.issue())
        self.assertEqual(detail, "the certificate of a.example is refused: of this")
