"""Signatures of images: AWS's are verified, ours are made, and nothing else passes."""

from __future__ import annotations

import datetime
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image.errors import ImageError
from nitroproxy.image.reader import read_image
from nitroproxy.image.signature import Signature, read_signature, sign
from tests.images import VECTORS

PCR0 = "ab" * 48


def key_pair(key: Any) -> tuple[bytes, bytes]:
    """A self-signed certificate and its key, both as PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signer")])
    now = datetime.datetime(2026, 1, 1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), private


def _edited(signature: Signature, index: int, value: Any) -> Signature:
    items = cbor2.loads(signature.sign1)
    items[index] = value
    return Signature(signature.certificate, signature.pem, cbor2.dumps(items))


class SigningTests(SynchronousTestCase):
    """What `sign` makes."""

    def test_round_trip(self) -> None:
        """A signature with each curve is packed, read again and verified; its certificate is what PCR8 covers."""
        for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()):
            pem, key = key_pair(ec.generate_private_key(curve))
            signature = read_signature(sign(PCR0, pem, key).pack())
            signature.verify(PCR0)
            self.assertEqual(signature.certificate_der, x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))

    def test_same_form(self) -> None:
        """Certificate and signature are encoded as nitro-cli encodes them: arrays of integers in this order."""
        theirs = read_image(VECTORS / "signed-p384.eif").signature
        assert theirs is not None
        raw = (VECTORS / "signed-p384.eif").read_bytes()
        self.assertTrue(raw.endswith(theirs.pack()))

    def test_refused_keys(self) -> None:
        """A key that is not the certificate's, of another kind or curve, or damaged is refused with the reason."""
        pem, key = key_pair(ec.generate_private_key(ec.SECP384R1()))
        _, other = key_pair(ec.generate_private_key(ec.SECP384R1()))
        for certificate, private, words in (
            (pem, other, "not the key of the signing certificate"),
            (*key_pair(rsa.generate_private_key(65537, 2048)), "expected an EC key"),
            (*key_pair(ec.generate_private_key(ec.SECP256K1())), "expected an EC key"),
            (pem, b"-----BEGIN", "private key"),
            (b"no PEM", key, "signing certificate"),
        ):
            self.assertIn(words, str(self.assertRaises(ImageError, sign, PCR0, certificate, private)))


class VerificationTests(SynchronousTestCase):
    """What is not a signature of this image."""

    def setUp(self) -> None:
        pem, key = key_pair(ec.generate_private_key(ec.SECP384R1()))
        self.signature = sign(PCR0, pem, key)

    def _refused(self, signature: Signature, words: str, pcr0: str = PCR0) -> None:
        self.assertIn(words, str(self.assertRaises(ImageError, signature.verify, pcr0)))

    def test_other_image(self) -> None:
        """A genuine signature of another image is refused."""
        self._refused(self.signature, "another image", "cd" * 48)

    def test_edited(self) -> None:
        """An edited payload, algorithm, header or signature is refused."""
        protected, _, payload, value = cbor2.loads(self.signature.sign1)
        self._refused(_edited(self.signature, 3, bytes(96)), "not made with the key")
        self._refused(_edited(self.signature, 3, value[:-1]), "expected 96 bytes")
        self._refused(_edited(self.signature, 0, cbor2.dumps({1: -7})), "algorithm")
        self._refused(_edited(self.signature, 0, cbor2.dumps({1: -35, 4: b"kid"})), "algorithm")
        self._refused(_edited(self.signature, 1, {4: b"kid"}), "COSE_Sign1")
        other = cbor2.dumps({"register_index": 0, "register_value": [1] * 48})
        self._refused(_edited(self.signature, 2, other), "not made with the key")
        self.assertEqual((protected, payload[:1]), (cbor2.dumps({1: -35}), b"\xa2"))

    def test_other_certificate(self) -> None:
        """A certificate of another key does not make the signature its own."""
        pem, _ = key_pair(ec.generate_private_key(ec.SECP384R1()))
        other = Signature(x509.load_pem_x509_certificate(pem), pem, self.signature.sign1)
        self._refused(other, "not made with the key")
        pem, _ = key_pair(rsa.generate_private_key(65537, 2048))
        other = Signature(x509.load_pem_x509_certificate(pem), pem, self.signature.sign1)
        self._refused(other, "P-256, P-384 or P-521")


class ReadingTests(SynchronousTestCase):
    """The section's own form."""

    def _refused(self, raw: bytes, words: str) -> None:
        self.assertIn(words, str(self.assertRaises(ImageError, read_signature, raw)))

    def test_forms(self) -> None:
        """What is not an array of one map with the two fields is refused."""
        pem, _key = key_pair(ec.generate_private_key(ec.SECP384R1()))
        good = {"signing_certificate": list(pem), "signature": [1]}
        read_signature(cbor2.dumps([good]))
        for value, words in (
            ({}, "an array of one map"),
            ([], "an array of one map"),
            ([good, good], "an array of one map"),
            ([{**good, "more": 1}], "no other field"),
            ([{"signature": [1]}], "no other field"),
            ([{**good, "signature": b"\1"}], "expected an array of bytes"),
            ([{**good, "signature": [256]}], "expected an array of bytes"),
            ([{**good, "signature": ["a"]}], "expected an array of bytes"),
            ([{**good, "signing_certificate": [1]}], "signing certificate"),
        ):
            self._refused(cbor2.dumps(value), words)
        self._refused(cbor2.dumps([good]) + b"\0", "bytes follow")

    def test_hostile(self) -> None:
        """Deep nesting and lengths that lie are refused, not crashed on."""
        self._refused(b"\x81" * 32_000, "not CBOR")
        self._refused(b"\x9b" + b"\xff" * 8, "not CBOR")
        self._refused(b"\x5b" + b"\xff" * 8, "not CBOR")
        self._refused(b"", "not CBOR")

    @given(st.binary(max_size=200))
    def test_noise(self, raw: bytes) -> None:
        """Whatever the bytes are, only ImageError comes out."""
        with self.assertRaises(ImageError):
            read_signature(raw)
