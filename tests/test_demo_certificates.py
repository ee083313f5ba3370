"""The local upstream's certificates."""

from __future__ import annotations

import datetime
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.demo.certificates import MAKE_BAD, ServerIdentity, ThrowAwayAuthority
from nitroproxy.demo.upstream_file import BAD_CERTIFICATES


def certificate(identity: ServerIdentity) -> x509.Certificate:
    """The certificate of *identity*."""
    return x509.load_pem_x509_certificate(identity.pem)


def names(of: x509.Certificate) -> list[str]:
    """The subjectAltName of *of*, empty if there is none."""
    try:
        found = of.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in found.value]


class CertificateTests(SynchronousTestCase):
    """Each bad certificate is bad in its own way only."""

    def setUp(self) -> None:
        """A CA and one certificate of each kind."""
        self.authority = ThrowAwayAuthority()
        self.ca = x509.load_pem_x509_certificate(self.authority.pem)
        self.key = cast(ec.EllipticCurvePublicKey, self.ca.public_key())
        self.bad = {name: certificate(make(self.authority)) for name, make in MAKE_BAD.items()}

    def test_the_good_one_is_for_this_machine(self) -> None:
        """The good certificate is signed by the CA for localhost and 127.0.0.1."""
        good = certificate(self.authority.issue())
        good.verify_directly_issued_by(self.ca)
        self.assertEqual(names(good), ["localhost", "127.0.0.1"])

    def test_there_is_one_of_each_kind(self) -> None:
        """Every kind that the file names is made."""
        self.assertEqual(list(MAKE_BAD), list(BAD_CERTIFICATES))

    def test_names_are_what_is_wrong_with_them(self) -> None:
        """The certificates with bad names have those, and all others are for this machine."""
        local = ["localhost", "127.0.0.1"]
        wrong = {
            "wrong_name": ["wrong.example"],
            "no_san": [],
            "email_only_san": ["ops@localhost"],
            "malformed_wildcard": ["*.*.localhost"],
        }
        self.assertEqual({name: names(bad) for name, bad in self.bad.items()}, dict.fromkeys(MAKE_BAD, local) | wrong)

    def test_only_one_has_expired(self) -> None:
        """The expired certificate ended in the past, after it began; all others are valid now."""
        now = datetime.datetime.now(datetime.UTC)
        expired = [name for name, bad in self.bad.items() if bad.not_valid_after_utc < now]
        self.assertEqual(expired, ["expired"])
        self.assertTrue(all(bad.not_valid_before_utc < bad.not_valid_after_utc for bad in self.bad.values()))

    def test_only_one_is_self_signed(self) -> None:
        """All but the self-signed certificate are signed by the CA."""
        own = [name for name, bad in self.bad.items() if bad.issuer == bad.subject]
        self.assertEqual(own, ["self_signed"])
        for name in set(MAKE_BAD) - {"self_signed"}:
            self.bad[name].verify_directly_issued_by(self.ca)
