"""Images are written so that they are read again, and signed without changing what is measured."""

from __future__ import annotations

import io
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image.errors import ImageError
from nitroproxy.image.layout import MAX_SECTIONS, Architecture, Kind
from nitroproxy.image.reader import read, read_image
from nitroproxy.image.writer import Part, write_image, write_signed
from tests.images import METADATA, PARTS, VECTORS, image
from tests.test_image_signature import key_pair


class WritingTests(SynchronousTestCase):
    """`write_image`."""

    @given(st.sampled_from(Architecture), st.binary(), st.lists(st.binary(max_size=99), min_size=1, max_size=8))
    def test_round_trip(self, architecture: Architecture, kernel: bytes, ramdisks: list[bytes]) -> None:
        """What is written is read with the same measurements."""
        out = io.BytesIO()
        parts = [(Kind.KERNEL, kernel), (Kind.CMDLINE, b"quiet"), (Kind.METADATA, METADATA)]
        parts += [(Kind.RAMDISK, one) for one in ramdisks]
        measured = write_image(out, architecture, [Part.of(kind, data) for kind, data in parts])
        found = read(io.BytesIO(out.getvalue()))
        self.assertEqual((found.measurements, found.header.architecture), (measured, architecture))

    def test_refused(self) -> None:
        """Too many sections, a section above its bound and a file shorter than it was said to be are refused."""
        too_many = [*PARTS, *[(Kind.RAMDISK, b"")] * MAX_SECTIONS]
        self.assertIn("sections, at most 32", str(self.assertRaises(ImageError, image, too_many)))
        self.assertIn("at most 2048", str(self.assertRaises(ImageError, image, [(Kind.CMDLINE, bytes(2049))])))
        short = Part(Kind.KERNEL, io.BytesIO(b"12"), 3)
        self.assertRaises(ImageError, write_image, io.BytesIO(), Architecture.X86_64, [short])


class SigningTests(SynchronousTestCase):
    """`write_signed`."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.pem, self.key = key_pair(ec.generate_private_key(ec.SECP384R1()))

    def _copy(self, name: str) -> Path:
        path = self.directory / "signed.eif"
        path.write_bytes((VECTORS / name).read_bytes())
        return path

    def test_signed(self) -> None:
        """Only PCR8 is added; the image that is read again is signed."""
        path = self._copy("three-ramdisks.eif")
        before = read_image(path).measurements
        measured = write_signed(path, path, self.pem, self.key)
        self.assertEqual((measured.pcr0, measured.pcr1, measured.pcr2), (before.pcr0, before.pcr1, before.pcr2))
        self.assertEqual(read_image(path).measurements, measured)
        self.assertIsNotNone(measured.pcr8)

    def test_replaced(self) -> None:
        """A signature that is there already is replaced, whoever made it."""
        path = self._copy("signed-p521.eif")
        before = read_image(path)
        measured = write_signed(path, path, self.pem, self.key)
        self.assertNotEqual(measured.pcr8, before.measurements.pcr8)
        kinds = [section.kind for section in read_image(path).sections]
        self.assertEqual(kinds.count(Kind.SIGNATURE), 1)

    def test_untouched(self) -> None:
        """When the key is wrong or the image damaged, the file stays as it was and no other is left behind."""
        path = self._copy("three-ramdisks.eif")
        before = path.read_bytes()
        self.assertRaises(ImageError, write_signed, path, path, self.pem, b"no key")
        self.assertEqual(path.read_bytes(), before)
        path.write_bytes(before[:-1])
        self.assertRaises(ImageError, write_signed, path, path, self.pem, self.key)
        self.assertEqual([one.name for one in self.directory.iterdir()], ["signed.eif"])
