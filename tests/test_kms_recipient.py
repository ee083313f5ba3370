"""Tests of `nitroproxy.kms.recipient`."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.kms.envelope import NotOpened
from nitroproxy.kms.recipient import RecipientKey, recipient_json
from nitroproxy.tls.client import TLSClient
from nitroproxy.tls.settings import TLSSettings
from tests.kms import OWN, REAL, broken_rules, changed, envelope_for, own_key, own_plaintext, stored
from tests.tlsmemory import Authority, MemoryServer


class OpenTests(SynchronousTestCase):
    """What is opened, and what is not."""

    def setUp(self) -> None:
        self.key = RecipientKey(own_key())

    def test_own(self) -> None:
        """An envelope that OpenSSL made is opened, in BER and in DER."""
        self.assertEqual(self.key.open(stored(OWN)), own_plaintext())
        self.assertEqual(self.key.open(changed(lambda enveloped: None)), own_plaintext())

    def test_another_key(self) -> None:
        """What is for another key is not opened: KMS's real answers, and ours by a key that was just made."""
        for name in REAL:
            self.assertRaises(NotOpened, self.key.open, stored(name))
        self.assertRaises(NotOpened, RecipientKey().open, stored(OWN))

    def test_bits(self) -> None:
        """One flipped bit in each byte: a secret, or `NotOpened`, which never says what was wrong.

        CBC does not notice every change, which is why only answers that came over TLS may be opened.
        """
        whole, refused = stored(OWN), 0
        for place, byte in enumerate(whole):
            try:
                self.key.open(whole[:place] + bytes([byte ^ 1 << place % 8]) + whole[place + 1 :])
            except NotOpened as error:
                self.assertEqual(str(error), "")
                refused += 1
        self.assertGreater(refused, len(whole) * 3 // 4)

    def test_rules(self) -> None:
        """What cannot be read is not opened."""
        for label, data in broken_rules():
            with self.assertRaises(NotOpened, msg=label):
                self.key.open(data)

    def test_aes_key(self) -> None:
        """An AES key of another length is refused."""
        self.assertEqual(self.key.open(envelope_for(self.key.public_key, b"secret", aes_key=bytes(32))), b"secret")
        for length in (16, 24, 31, 33):
            data = envelope_for(self.key.public_key, b"secret", aes_key=bytes(length))
            self.assertRaises(NotOpened, self.key.open, data)

    def test_padding(self) -> None:
        """Padding that is not PKCS #7's is refused."""
        for pad in (bytes(10), b"\x11" * 10, bytes([10] * 9 + [9]), b"\x0b" * 10):
            self.assertRaises(NotOpened, self.key.open, envelope_for(self.key.public_key, b"secret", pad=pad))

    @settings(max_examples=40, deadline=None)
    @given(st.binary(max_size=4096))
    def test_round_trip(self, plaintext: bytes) -> None:
        """What is encrypted for the key is what comes out, of any length."""
        key = RecipientKey(own_key())
        self.assertEqual(key.open(envelope_for(key.public_key, plaintext)), plaintext)


class OnTheWayTests(SynchronousTestCase):
    """What makes up for the integrity that an envelope does not have: the TLS that ends in the enclave."""

    def test_flipped(self) -> None:
        """A host that flips one bit of an answer in the tunnel ends the connection: no part of it is given on."""
        root = Authority()
        roots = Path(self.mktemp())
        roots.write_bytes(root.pem)
        client, server = TLSClient(TLSSettings(ca_file=str(roots))), MemoryServer(root.issue())
        envelope = stored(OWN)
        for place in range(5, len(envelope), 29):
            wire, application = server.accepted(client)
            server.tls.send(envelope)
            record = bytearray(server.tls.bio_read(65536))
            record[place] ^= 1 << place % 8
            wire.receive(bytes(record))
            wire.settle()
            self.assertEqual((application.received, len(application.lost)), (b"answer", 1), place)
        wire, application = server.accepted(client)
        server.send(wire, envelope)
        self.assertEqual(application.received, b"answer" + envelope)


class KeyTests(SynchronousTestCase):
    """The key, and what a request says of it."""

    def test_public_key(self) -> None:
        """It is RSA-2048, in a form that fits into a document; each key is another."""
        first, second = RecipientKey(), RecipientKey()
        self.assertNotEqual(first.public_key, second.public_key)
        public = load_der_public_key(first.public_key)
        assert isinstance(public, rsa.RSAPublicKey)
        self.assertEqual((public.key_size, public.public_numbers().e), (2048, 65537))
        self.assertLessEqual(len(first.public_key), 1024)

    def test_recipient(self) -> None:
        """The Recipient of a request, as KMS's API defines it."""
        told = json.loads(recipient_json(b"\xd2document"))
        self.assertEqual(set(told), {"AttestationDocument", "KeyEncryptionAlgorithm"})
        self.assertEqual(base64.b64decode(told["AttestationDocument"]), b"\xd2document")
        self.assertEqual(told["KeyEncryptionAlgorithm"], "RSAES_OAEP_SHA_256")
