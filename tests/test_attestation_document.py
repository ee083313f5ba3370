"""Tests of `nitroproxy.attestation.document`. The rules themselves: see `tests.attestation`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation.document import MAX_DOCUMENT, read_document
from nitroproxy.attestation.refusal import Refused
from tests.attestation import pki
from tests.attestation.real import load


class RealTests(SynchronousTestCase):
    """The stored documents."""

    def test_fields(self) -> None:
        """Every stored document is read, and says what its record says."""
        for real in load():
            document, record = read_document(real.data), real.record
            self.assertEqual(document.module_id, record["module_id"])
            self.assertEqual(document.timestamp, real.signed)
            self.assertEqual(document.pcrs, real.pcrs)
            self.assertEqual(len(document.cabundle), record["chain_length"])
            for name in ("public_key", "user_data", "nonce"):
                value = getattr(document, name)
                self.assertEqual(None if value is None else value.hex(), record[name], real.name)

    def test_both_kinds_of_map(self) -> None:
        """The stored documents have payload maps of definite and of indefinite length, and null and empty fields."""
        kinds = {document.record["payload_map"] for document in load()}
        self.assertEqual(kinds, {"definite", "indefinite"})
        self.assertIn("", [document.record["user_data"] for document in load()])
        self.assertIn(None, [document.record["user_data"] for document in load()])


class DetailTests(SynchronousTestCase):
    """The messages."""

    def detail(self, data: object) -> str:
        """The refusal as text."""
        return str(self.assertRaises(Refused, read_document, data))

    def test_size(self) -> None:
        """The limits and the size are named, and what is not bytes is refused as such."""
        expected = f"size: expected 1 to {MAX_DOCUMENT} bytes, got "
        self.assertEqual(self.detail(b""), f"{expected}0 bytes")
        self.assertEqual(self.detail(b"x" * (MAX_DOCUMENT + 1)), f"{expected}16385 bytes")
        self.assertEqual(self.detail(bytearray(b"x")), f"{expected}bytearray")
        self.assertTrue(self.detail(b"x" * MAX_DOCUMENT).startswith("envelope:"))

    def test_fields(self) -> None:
        """Missing and unknown fields are named, all of them."""
        chain = pki.pki()
        fields = pki.fields(chain)
        data = pki.document(chain, {**fields, "digest": None, "pcrs": None})
        self.assertEqual(self.detail(data), "fields: missing or null: digest, pcrs")
        data = pki.document(chain, {**fields, "z": 1, "a\n": 2})
        self.assertEqual(self.detail(data), "fields: unknown: a\\n, z")

    def test_values(self) -> None:
        """The limit and the value are named."""
        chain = pki.pki()
        for name, value, text in (
            ("digest", "SHA256", "digest: expected 'SHA384', got 'SHA256'"),
            ("nonce", b"n" * 513, "nonce: expected 0 to 512 bytes, got 513 bytes"),
            ("nonce", "n", "nonce: expected 0 to 512 bytes, got str"),
            ("pcrs", {40: bytes(48)}, "pcrs: expected an index 0 to 31, got 40"),
            ("pcrs", {4: bytes(40)}, "pcrs: PCR4 is not a byte string of 32, 48 or 64"),
            ("timestamp", -1, "timestamp: expected milliseconds since 1970, before the year 10000, got -1"),
        ):
            self.assertEqual(self.detail(pki.document(chain, {**pki.fields(chain), name: value})), text)

    def test_pcrs_cannot_be_changed(self) -> None:
        """The measurements that were verified are the ones that are used."""
        document = read_document(pki.document(pki.pki()))
        with self.assertRaises(TypeError):
            document.pcrs[0] = b""  # type: ignore[index]
