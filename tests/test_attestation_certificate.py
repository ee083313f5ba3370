"""Tests of `nitroproxy.attestation.certificate`. The rules themselves: see `tests.attestation.certificate_rules`."""

from __future__ import annotations

import warnings
from datetime import timedelta

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation.certificate import Certificate, read_certificate
from nitroproxy.attestation.refusal import Refused
from tests.attestation.pki import T0, pki


class ReadTests(SynchronousTestCase):
    """What is refused before anything else is looked at."""

    def refusal(self, der: bytes) -> str:
        """The refusal as text."""
        return str(self.assertRaises(Refused, read_certificate, der, "cabundle[1]"))

    def test_serial_number(self) -> None:
        """A serial number that is not positive is refused."""
        chain = pki()
        serial = x509.load_der_x509_certificate(chain.leaf).serial_number
        written = serial.to_bytes((serial.bit_length() + 8) // 8, "big")
        negative = chain.leaf.replace(written, b"\x80" + written[1:], 1)
        self.assertNotEqual(negative, chain.leaf)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.assertIn("serial number is not positive", self.refusal(negative))

    def test_warnings_as_errors(self) -> None:
        """What a library of today warns of, and that of tomorrow raises, is a refusal."""
        chain = pki()
        serial = x509.load_der_x509_certificate(chain.leaf).serial_number
        written = serial.to_bytes((serial.bit_length() + 8) // 8, "big")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertTrue(self.refusal(chain.leaf.replace(written, b"\x80" + written[1:], 1)).startswith("certif"))

    def test_version_1(self) -> None:
        """A certificate of version 1 is refused though it has the extensions of version 3."""
        der = pki(leaf={"extra": [(x509.SubjectKeyIdentifier(b"k" * 40), False)]}).leaf
        version = bytes.fromhex("a003020102")
        self.assertEqual((der[:2], der[4:6], der[8:13]), (b"\x30\x82", b"\x30\x82", version))
        outer, inner = (int.from_bytes(der[at : at + 2], "big") - len(version) for at in (2, 6))
        first = b"\x30\x82" + outer.to_bytes(2, "big") + b"\x30\x82" + inner.to_bytes(2, "big") + der[13:]
        self.assertEqual(self.refusal(first), "certificate: cabundle[1]: not of version 3")

    def test_place(self) -> None:
        """The message says which certificate of the document it is."""
        self.assertTrue(self.refusal(b"\x30\x00").startswith("certificate: cabundle[1]: "))

    def test_malformed_names(self) -> None:
        """Names that the parser looks at late are refused here, not later."""
        chain = pki()
        at = chain.leaf.index(b"\x06\x03\x55\x04\x03")
        # The type of the common name's value: a UTF8String becomes an INTEGER.
        changed = chain.leaf[: at + 5] + b"\x02" + chain.leaf[at + 6 :]
        self.assertTrue(self.refusal(changed).startswith("certificate: cabundle[1]: "))


class CheckTests(SynchronousTestCase):
    """Times and purposes."""

    def setUp(self) -> None:
        chain = pki()
        self.leaf = read_certificate(chain.leaf, "certificate")
        self.instance = read_certificate(chain.cabundle[-1], "cabundle[3]")

    def refusal(self, check: object, *arguments: object) -> str:
        """The refusal as text."""
        return str(self.assertRaises(Refused, check, *arguments))

    def test_time(self) -> None:
        """Both ends belong to the time of validity; the message has all three times."""
        end = T0 + timedelta(hours=3)
        self.leaf.check_time(T0)
        self.leaf.check_time(end)
        self.assertEqual(
            self.refusal(self.leaf.check_time, end + timedelta(seconds=1)),
            "validity: certificate is valid from 2026-11-27 12:00:00 to 2026-11-27 15:00:00 UTC, not at "
            "2026-11-27 15:00:01",
        )
        self.assertIn("validity", self.refusal(self.leaf.check_time, T0 - timedelta(milliseconds=1)))

    def test_purposes(self) -> None:
        """A leaf is not a CA, nor the other way round."""
        self.leaf.check_leaf()
        self.instance.check_ca(0)
        self.assertIn("but is a CA", self.refusal(self.instance.check_leaf))
        self.assertIn("certificate is not a CA", self.refusal(self.leaf.check_ca, 0))
        self.assertIn("allows 0 CAs below it, there are 1", self.refusal(self.instance.check_ca, 1))

    def test_key(self) -> None:
        """The key is there to be used."""
        self.assertIsInstance(self.leaf, Certificate)
        self.assertEqual(self.leaf.key.curve.name, "secp384r1")
