"""`nitroproxy.tls.webpki`: what the profile refuses that OpenSSL accepts, and that it accepts what it must."""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.tls.anchors import Anchor, load_anchors
from nitroproxy.tls.reasons import Refused
from nitroproxy.tls.settings import TLSSettings
from nitroproxy.tls.webpki import WebPKI
from tests.tlsmemory import DAY, NOW, Authority, Identity, usage


def anchor(certificate: x509.Certificate, *, built_in: bool = False) -> Anchor:
    return Anchor(certificate, certificate.public_bytes(Encoding.DER), built_in)


class ProfileCase(SynchronousTestCase):
    """Checks chains to one root."""

    def refusal(
        self, identity: Identity, root: x509.Certificate, host: str = "a.example", *, built_in: bool = False, **at: Any
    ) -> str | None:
        """Why the profile refuses *identity*; None when it accepts it."""
        trusted = anchor(root, built_in=built_in)
        sent = [identity.certificate, *identity.intermediates]
        try:
            WebPKI([trusted]).check(sent, [*sent, root], trusted, host, at.get("now", NOW))
        except Refused as error:
            return str(error)
        return None


class GoodTests(ProfileCase):
    """Chains that conform."""

    def test_good(self) -> None:
        """A chain that conforms is accepted: with an intermediate or none, for names, wildcards and addresses."""
        root = Authority()
        middle = Authority("middle", root)
        names = ("a.example", "*.b.example", "192.0.2.1", "2001:db8::1")
        for issuer in (root, middle):
            for host in ("a.example", "x.b.example", "under_score.b.example", "_.b.example", *names[2:]):
                self.assertIsNone(self.refusal(issuer.issue(*names), root.certificate, host), host)

    def test_rsa(self) -> None:
        """RSA keys of 2,048 bits are accepted."""
        root = Authority(key=rsa.generate_private_key(65537, 2048))
        self.assertIsNone(self.refusal(root.issue(key=root.key), root.certificate))

    def test_every_built_in_root(self) -> None:
        """A conforming chain below a root of the shape of each built-in one is accepted: no public site is lost."""
        refused = {}
        for one in load_anchors(TLSSettings()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                identity, root = _below(one.certificate)
                reason = self.refusal(identity, root, built_in=True)
            if reason is not None:
                refused[one.certificate.subject.rfc4514_string()] = reason
        self.assertEqual(refused, {})

    def test_exemption_is_for_built_in_roots(self) -> None:
        """A root without a key identifier, of which one is built in, is refused from a file."""
        root = Authority(without=[x509.SubjectKeyIdentifier])
        self.assertIsNone(self.refusal(root.issue(), root.certificate, built_in=True))
        self.assertIn("X509_STRICT", self.refusal(root.issue(), root.certificate) or "")


def _below(root: x509.Certificate) -> tuple[Identity, x509.Certificate]:
    """A certificate below a copy of *root* that differs in its key and signature alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = max(1, root.serial_number)
    builder = x509.CertificateBuilder(root.issuer, root.subject, key.public_key(), serial)
    builder = builder.not_valid_before(root.not_valid_before_utc).not_valid_after(root.not_valid_after_utc)
    for extension in root.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    issuer = Authority(key=key)
    issuer.name = root.subject
    try:
        own = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    return issuer.issue(extra=[(identifier, False)]), builder.sign(key, hashes.SHA256())


class BadTests(ProfileCase):
    """Chains that do not conform. OpenSSL's usual verification accepts each."""

    def setUp(self) -> None:
        self.root = Authority()

    def assert_refused(self, words: str, identity: Identity, root: Authority | None = None, **at: Any) -> None:
        reason = self.refusal(identity, (root or self.root).certificate, **at)
        self.assertIn(words, reason or "accepted")

    def test_strict(self) -> None:
        """X509_STRICT asks an authority for what RFC 5280 does, and the refusal names the authority."""
        for without in (x509.KeyUsage, x509.SubjectKeyIdentifier):
            middle = Authority("middle", self.root, without=[without])
            self.assert_refused('of "CN=middle" (OpenSSL, X509_STRICT)', middle.issue())
        self.assert_refused("X509_STRICT", self.root.issue(without=[x509.AuthorityKeyIdentifier]))

    def test_second_verifier(self) -> None:
        """The second verifier asks for the web's rules, and says so: here for a leaf that is an authority's."""
        authority = x509.BasicConstraints(ca=True, path_length=None)
        identity = self.root.issue(extra=[(authority, True), (usage("key_cert_sign", "digital_signature"), True)])
        self.assert_refused("(by the second verifier)", identity)

    def test_second_verifier_time(self) -> None:
        """It is asked for the time that the client's clock has."""
        self.assert_refused("(", self.root.issue(), now=NOW + 31 * DAY)
        self.assertIsNone(self.refusal(self.root.issue(), self.root.certificate, now=NOW + 29 * DAY))

    def test_any_usage(self) -> None:
        """A certificate for anything."""
        anything = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
        self.assert_refused("anyExtendedKeyUsage", self.root.issue(extra=[(anything, False)]))

    def test_keys(self) -> None:
        """RSA keys that are too small, or not of whole bytes: the server's, an intermediate's, a root's."""
        small, odd = rsa.generate_private_key(65537, 1024), rsa.generate_private_key(65537, 2052)
        for key in (small, odd):
            self.assert_refused(f"{key.key_size} bits", self.root.issue(key=key))
        self.assert_refused('"CN=middle" has 1024 bits', Authority("middle", self.root, key=small).issue())
        root = Authority("odd", key=odd)
        self.assert_refused('"CN=odd" has 2052 bits', root.issue(), root)

    def test_policy_constraints(self) -> None:
        """Policy constraints that are not critical."""
        constraints = x509.PolicyConstraints(0, None)
        middle = Authority("middle", self.root, extra=[(constraints, False)])
        self.assert_refused("policy constraints", middle.issue())

    def test_roots(self) -> None:
        """A root with a usage, and one whose two key identifiers differ or which names an issuer."""
        servers = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        root = Authority(extra=[(servers, False)])
        self.assert_refused("extended key usage", root.issue(), root)
        for identifier, words in (
            (x509.AuthorityKeyIdentifier(b"other", None, None), "two key identifiers"),
            (x509.AuthorityKeyIdentifier(b"x", [x509.DirectoryName(self.root.name)], 1), "names an issuer"),
        ):
            root = Authority(extra=[(identifier, False)])
            self.assert_refused(words, root.issue(), root)

    def test_serial(self) -> None:
        """A serial number of zero, which no authority may give; but a root may have it, as five built-in ones do."""
        identity = self.root.issue(serial=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zero = _with_serial_zero(identity.certificate)
            self.assert_refused("serial number", Identity(zero, identity.key))

    def test_age(self) -> None:
        """A chain that was right stays right until it expires and not a second longer."""
        identity = self.root.issue(not_after=NOW + DAY)
        self.assertIsNone(self.refusal(identity, self.root.certificate, now=NOW + DAY))
        self.assertIsNotNone(self.refusal(identity, self.root.certificate, now=NOW + DAY + timedelta(seconds=1)))


def _with_serial_zero(certificate: x509.Certificate) -> x509.Certificate:
    """*certificate*, whose serial number is 1, with 0 instead; its signature does not fit any more."""
    der = certificate.public_bytes(Encoding.DER)
    one, zero = (bytes.fromhex("a003 020102 0201") + bytes([serial]) for serial in (1, 0))  # version 3, then it
    assert der.count(one) == 1
    return x509.load_der_x509_certificate(der.replace(one, zero))
