"""Tests of `nitroproxy.attestation.evidence`: what binds a document to a connection."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation import Attestation, Entry, Policy, Refused
from nitroproxy.attestation.evidence import (
    CHANNEL,
    CMW,
    IDENTITY,
    MOST_REGISTERED,
    make_certificate,
    spki_of,
    verify_certificate,
    verify_challenge,
)
from tests.attestation.pki import T0, document, fields, pki

NOW = T0 + timedelta(minutes=2)
ENDS = T0 + timedelta(hours=3)
POLICY = Policy((Entry("test", {index: bytes([index + 1]) * 48 for index in range(5)}),))
KEY = ec.generate_private_key(ec.SECP256R1())
NONCE, EXPORTED = b"n" * 16, b"e" * 32


class EvidenceCase(SynchronousTestCase):
    """A document of a PKI of our own."""

    def setUp(self) -> None:
        self.chain = pki()

    def document(self, **changes: Any) -> bytes:
        """A document for `KEY`, or with other fields."""
        own = {"public_key": spki_of(KEY.public_key()), "user_data": IDENTITY, "nonce": None}
        return document(self.chain, {**fields(self.chain), **own, **changes})

    def rule(self, der: bytes) -> str:
        """The rule for which *der* is refused."""
        error = self.assertRaises(Refused, verify_certificate, der, POLICY, now=NOW, roots=self.chain.roots)
        return str(error.rule)


class CertificateTests(EvidenceCase):
    """Certificates."""

    def test_made_and_verified(self) -> None:
        """What the enclave makes proves its key, and brings what the application has registered."""
        data = IDENTITY + b"r" * MOST_REGISTERED
        der = make_certificate(KEY, self.document(user_data=data), NOW, ENDS)
        identity = verify_certificate(der, POLICY, now=NOW, roots=self.chain.roots)
        self.assertEqual(identity.spki, spki_of(KEY.public_key()))
        self.assertEqual(identity.user_data, b"r" * MOST_REGISTERED)
        self.assertEqual(identity.attestation.entry, "test")

    def test_for_others(self) -> None:
        """The extension is not critical, so that others who know nothing of it connect as usual."""
        parsed = x509.load_der_x509_certificate(make_certificate(KEY, self.document(), NOW, ENDS))
        self.assertFalse(parsed.extensions.get_extension_for_oid(CMW).critical)
        self.assertEqual(parsed.not_valid_after_utc, ENDS)
        parsed.verify_directly_issued_by(parsed)

    def test_record(self) -> None:
        """The extension is an OCTET STRING with a record in CBOR: media type, document, the bit for evidence."""
        parsed = x509.load_der_x509_certificate(make_certificate(KEY, self.document(), NOW, ENDS))
        value = parsed.extensions.get_extension_for_oid(CMW).value
        assert isinstance(value, x509.UnrecognizedExtension)
        self.assertEqual(value.value[:2], b"\x04\x82")
        self.assertEqual(cbor2.loads(value.value[4:]), ["application/aws-nitro-document", self.only(value.value), 4])

    @staticmethod
    def only(value: bytes) -> bytes:
        """The document in an extension's value."""
        found: bytes = cbor2.loads(value[4:])[1]
        return found

    def test_copied(self) -> None:
        """A document that was made for another key is refused, whoever signs the certificate."""
        thief = ec.generate_private_key(ec.SECP256R1())
        self.assertEqual(self.rule(make_certificate(thief, self.document(), NOW, ENDS)), "binding")

    def test_not_for_tls(self) -> None:
        """A document that the application has asked for, or the answer to a challenge, is not an identity."""
        for user_data in (None, b"", b"nitroproxy/tls/", CHANNEL + EXPORTED, b"x" + IDENTITY, IDENTITY.upper()):
            der = make_certificate(KEY, self.document(user_data=user_data), NOW, ENDS)
            self.assertEqual(self.rule(der), "binding", user_data)

    def test_rules_of_documents(self) -> None:
        """What is wrong with the document is found: its age, the image, debug mode, the root."""
        zeros = {index: bytes(48) if index < 3 else bytes([index + 1]) * 48 for index in range(16)}
        other = {**zeros, 0: b"x" * 48, 1: b"y" * 48, 2: b"z" * 48}
        for changes, rule in (({"pcrs": zeros}, "debug"), ({"pcrs": other}, "policy"), ({"extra": 1}, "fields")):
            self.assertEqual(self.rule(make_certificate(KEY, self.document(**changes), NOW, ENDS)), rule)
        der = make_certificate(KEY, self.document(), NOW, ENDS)
        for now, roots, rule in (
            (NOW + timedelta(hours=1), self.chain.roots, "age"),
            (NOW, frozenset([b"r" * 32]), "root"),
        ):
            error = self.assertRaises(Refused, verify_certificate, der, POLICY, now=now, roots=roots)
            self.assertEqual(error.rule, rule)
        error = self.assertRaises(Refused, verify_certificate, der, POLICY, now=NOW)
        self.assertEqual(error.rule, "root")

    def certificate(self, key: Any, *extensions: bytes) -> bytes:
        """A certificate with these values in extensions of type CMW."""
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(ENDS)
        for value in extensions:
            builder = builder.add_extension(x509.UnrecognizedExtension(CMW, value), False)
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)

    def test_extension(self) -> None:
        """There is one way to write the extension."""
        made = self.document()
        media = "application/aws-nitro-document"
        record = cbor2.dumps([media, made, 4])
        length = len(record).to_bytes(2, "big")
        good = b"\x04\x82" + length + record
        verify_certificate(self.certificate(KEY, good), POLICY, now=NOW, roots=self.chain.roots)

        def octets(content: bytes) -> bytes:
            return b"\x04\x82" + len(content).to_bytes(2, "big") + content

        for value in (
            b"",
            b"\x04",
            b"\x04\x00",
            b"\x04\x80" + record,
            b"\x0c" + good[1:],
            b"\x24" + good[1:],
            b"\x04\x83\x00" + length + record,
            b"\x04\x84\xff\xff\xff\xff" + record,
            good + b"\0",
            good[:-1],
            octets(record + b"\0"),
            octets(cbor2.dumps([media, made, 4, 0])),
            octets(cbor2.dumps([media, made])),
            octets(cbor2.dumps([media, made, 5])),
            octets(cbor2.dumps([media, made, True])),
            octets(cbor2.dumps([media, made, 4.0])),
            octets(cbor2.dumps([media + "x", made, 4])),
            octets(cbor2.dumps([media.encode(), made, 4])),
            octets(cbor2.dumps([media, [made], 4])),
            octets(cbor2.dumps({0: media, 1: made, 2: 4})),
            octets(b"\x9f" + record[1:] + b"\xff"),
            octets(record[:-1] + b"\x18\x04"),
            octets(b"\xd9\xd9\xf7" + record),
        ):
            self.assertIn(self.rule(self.certificate(KEY, value)), ("extension", "cbor"), value[:20])
        self.assertEqual(self.rule(self.certificate(KEY)), "extension")

    def test_keys(self) -> None:
        """Only keys on P-256 are identities."""
        for key in (ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)):
            self.assertEqual(self.rule(self.certificate(key)), "binding")

    def test_no_certificate(self) -> None:
        """What is no certificate, and what is too large for one, is refused."""
        for der in (b"\x30", b"\x30\x00", b"-----BEGIN CERTIFICATE-----"):
            self.assertEqual(self.rule(der), "certificate")
        for der in (b"", bytes(20481)):
            self.assertEqual(self.rule(der), "size")

    def test_mutations(self) -> None:
        """A certificate with flipped bits or cut bytes is refused, or still proves the same key: it never raises
        anything else. (Names, dates and its own signature prove nothing, and may be changed.)"""
        der = make_certificate(KEY, self.document(), NOW, ENDS)
        known, proven = random.Random(16), 0
        for case in range(1500):
            changed = bytearray(der)
            for _ in range(1 + case % 3):
                changed[known.randrange(len(der))] ^= 1 << known.randrange(8)
            if case % 5 == 0:
                del changed[known.randrange(len(changed)) :]
            try:
                identity = verify_certificate(bytes(changed), POLICY, now=NOW, roots=self.chain.roots)
            except Refused as refused:
                self.assertNotEqual(refused.rule, "internal", str(refused))
            else:
                proven += 1
                self.assertEqual(identity.spki, spki_of(KEY.public_key()))
        self.assertLess(proven, 300)

    def test_unexpected(self) -> None:
        """An exception of the verifier's own refuses."""

        class Broken(Policy):
            def match(self, pcrs: object) -> Entry:
                raise RuntimeError("a defect")

        broken = Broken(POLICY.entries)
        der = make_certificate(KEY, self.document(), NOW, ENDS)
        error = self.assertRaises(Refused, verify_certificate, der, broken, now=NOW, roots=self.chain.roots)
        self.assertEqual(error.rule, "internal")


class ChallengeTests(EvidenceCase):
    """Answers to challenges."""

    def verify(self, answer: bytes, **changes: Any) -> Attestation:
        """Verify *answer* on the connection, or with something changed."""
        known = {"nonce": NONCE, "spki": spki_of(KEY.public_key()), "exported": EXPORTED} | changes
        return verify_challenge(answer, POLICY, now=NOW, roots=self.chain.roots, **known)

    def test_answer(self) -> None:
        """An answer with the nonce, for the key and the connection, is accepted."""
        answer = self.document(nonce=NONCE, user_data=CHANNEL + EXPORTED)
        self.assertEqual(self.verify(answer).entry, "test")

    def test_refusals(self) -> None:
        """Another nonce, key or connection, and an identity in the place of an answer, are refused."""
        good = {"nonce": NONCE, "user_data": CHANNEL + EXPORTED}
        for changes, rule in (
            ({"nonce": b"m" * 16}, "nonce"),
            ({"nonce": None}, "nonce"),
            ({"user_data": CHANNEL + b"f" * 32}, "binding"),
            ({"user_data": CHANNEL}, "binding"),
            ({"user_data": IDENTITY}, "binding"),
            ({"user_data": None}, "binding"),
            ({"public_key": None}, "binding"),
            ({"public_key": b"k"}, "binding"),
        ):
            answer = self.document(**{**good, **changes})
            self.assertEqual(self.assertRaises(Refused, self.verify, answer).rule, rule, changes)
        for given in ({"exported": b""}, {"exported": b"f" * 32}, {"spki": b"k"}):
            error = self.assertRaises(Refused, self.verify, self.document(**good), **given)
            self.assertEqual(error.rule, "binding")
        empty = self.document(nonce=NONCE, user_data=CHANNEL)
        self.assertEqual(self.assertRaises(Refused, self.verify, empty, exported=b"").rule, "binding")
