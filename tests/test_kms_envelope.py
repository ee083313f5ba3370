"""Tests of `nitroproxy.kms.envelope`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.kms.envelope import BLOCK_BYTES, KEY_BYTES, MAX_ENVELOPE, NotOpened, read
from tests.kms import OWN, REAL, broken_rules, changed, stored


class ReadTests(SynchronousTestCase):
    """What is read, and what is refused."""

    def test_real(self) -> None:
        """Both forms in which KMS answers are read, and that of OpenSSL."""
        for name in (*REAL, OWN):
            parts = read(stored(name))
            self.assertEqual((len(parts.encrypted_key), len(parts.iv)), (KEY_BYTES, BLOCK_BYTES), name)
            self.assertEqual((len(parts.ciphertext) % BLOCK_BYTES, bool(parts.ciphertext)), (0, True), name)

    def test_forms(self) -> None:
        """The same in DER, with definite lengths and the content in one piece, has the same parts."""
        der = changed(lambda enveloped: None)
        self.assertNotEqual(der, stored(OWN))
        self.assertEqual(read(der), read(stored(OWN)))

    def test_rules(self) -> None:
        """What CMS allows and KMS does not write is refused, one rule broken at a time."""
        count = 0
        for label, data in broken_rules():
            with self.assertRaises(NotOpened, msg=label):
                read(data)
            count += 1
        self.assertEqual(count, 25)

    def test_size(self) -> None:
        """Nothing is refused; more than KMS makes is not parsed."""
        room = MAX_ENVELOPE - len(changed(lambda enveloped: None))

        def padded(blocks: int) -> bytes:
            def change(enveloped: object) -> None:
                content = enveloped["encrypted_content_info"]  # type: ignore[index]
                content["encrypted_content"] = bytes(blocks * BLOCK_BYTES)

            return changed(change)

        read(padded(room // BLOCK_BYTES - 8))
        for data in (b"", padded(room // BLOCK_BYTES + 8), bytes(MAX_ENVELOPE + 1)):
            self.assertRaises(NotOpened, read, data)

    def test_cuts(self) -> None:
        """An envelope that is cut short, at whichever byte, is refused; so is one with bytes after it."""
        for name in (*REAL, OWN):
            whole = stored(name)
            for length in range(len(whole)):
                self.assertRaises(NotOpened, read, whole[:length])
            for rest in (b"\0", b"\0\0", whole):
                self.assertRaises(NotOpened, read, whole + rest)

    def test_bits(self) -> None:
        """One flipped bit in each byte: an envelope or `NotOpened`, and no other exception."""
        for name in (*REAL, OWN):
            whole = stored(name)
            for place, byte in enumerate(whole):
                _read_or_refuse(whole[:place] + bytes([byte ^ 1 << place % 8]) + whole[place + 1 :])

    def test_nesting(self) -> None:
        """Constructed strings in each other, as deep as there is room, are refused without another exception."""
        for head in (b"\x30\x80", b"\xa0\x80", b"\x24\x80", b"\x31\x80"):
            _read_or_refuse(head * (MAX_ENVELOPE // 2))
            _read_or_refuse(head * (MAX_ENVELOPE // 4) + b"\0\0" * (MAX_ENVELOPE // 4))

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_edits(self, data: st.DataObject) -> None:
        """Several random edits at once."""
        changing = bytearray(stored(data.draw(st.sampled_from((*REAL, OWN)))))
        for _ in range(data.draw(st.integers(1, 4))):
            start = data.draw(st.integers(0, len(changing)))
            end = start + data.draw(st.integers(0, 8))
            changing[start:end] = data.draw(st.binary(max_size=8))
        _read_or_refuse(bytes(changing))


def _read_or_refuse(data: bytes) -> None:
    try:
        read(data)
    except NotOpened:
        return
