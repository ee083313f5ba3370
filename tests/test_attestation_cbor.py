"""Tests of `nitroproxy.attestation.cbor`."""

from __future__ import annotations

import cbor2
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation.cbor import decode, encode
from nitroproxy.attestation.refusal import Refused


class DecodeTests(SynchronousTestCase):
    """What is read, and what is not."""

    def refusal(self, written: str, depth: int = 3) -> str:
        """The detail with which the bytes *written*, in hexadecimal, are refused."""
        refused = self.assertRaises(Refused, decode, bytes.fromhex(written), depth)
        self.assertEqual(refused.rule, "cbor")
        return str(refused.detail)

    def test_values(self) -> None:
        """Definite and indefinite lengths give the same values."""
        for written in ("a26161824101f661621863", "bf61619f5f4101fff6ff61621863ff"):
            item, length = decode(bytes.fromhex(written), 3)
            self.assertEqual(item, {"a": [b"\1", None], "b": 99})
            self.assertEqual(length, len(written) // 2)

    def test_length(self) -> None:
        """The length tells where the item ends, whatever follows it and however long that is."""
        for tail in (b"", b"\0", b"\xff", b"x" * 100_000):
            self.assertEqual(decode(cbor2.dumps({"a": b"bc"}) + tail, 3), ({"a": b"bc"}, 6))

    def test_tags(self) -> None:
        """Every tag is refused, those that cbor2 would decode too, wherever it stands."""
        for tag in (0, 1, 2, 3, 4, 5, 18, 24, 28, 29, 30, 35, 36, 37, 100, 256, 258, 1004, 43000, 55799, 2**64 - 1):
            head = b"\xdb" + tag.to_bytes(8, "big")
            for written in (head + b"\x40", b"\x81" + head + b"\x40", b"\xa1" + head + b"\x40\x00"):
                self.assertEqual(self.refusal(written.hex()), f"tag {tag} is not allowed")

    def test_keys_twice(self) -> None:
        """A key that comes twice is refused, written the same way or not; Python takes True and 1.0 for 1."""
        for written in ("a20100 0100", "a20100 180100", "a20100 f500", "a20100 f93c0000", "bf616100 7861 01 6100ff"):
            self.refusal(written)
        self.assertIn("Duplicate map key", self.refusal("a2616100 616100"))

    def test_depth(self) -> None:
        """Nesting beyond the depth is refused, at once."""
        decode(bytes.fromhex("81818100"), 3)
        self.assertIn("depth", self.refusal("8181818100"))
        self.assertIn("depth", self.refusal("9f" * 16384))

    def test_malformed(self) -> None:
        """What ends early, claims more than there is, or is not CBOR is refused."""
        for written in (
            "",
            "5b7fffffffffffffff",
            "9b7fffffffffffffff",
            "ff",
            "fc",
            "f818",
            "61ff",
            "bf00ff",
            "a1",
            "81",
        ):
            self.refusal(written)
        for head in ("5b", "7b", "9b", "bb"):
            self.refusal(f"{head}{'ff' * 8}")
            self.refusal(f"{head}{'00' * 3}{'ff' * 5}")
        for written in ("5f6161ff", "7f4161ff", "7f7f6161ffff", "1c", "5e"):
            self.refusal(written)


class EncodeTests(SynchronousTestCase):
    """What is written."""

    def test_shortest(self) -> None:
        """Lengths are definite and in the fewest bytes."""
        self.assertEqual(encode([b"", {}, b"x" * 24]).hex(), "8340a05818" + "78" * 24)
