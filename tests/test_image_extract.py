"""Sections as files."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image.errors import ImageError
from nitroproxy.image.extract import extract_image
from tests.images import METADATA, image


class ExtractTests(SynchronousTestCase):
    """`extract_image`."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.eif = self.directory / "image.eif"
        self.eif.write_bytes(image())
        self.out = self.directory / "out"

    def test_files(self) -> None:
        """Each section is a file; ramdisks are numbered in their order."""
        extract_image(self.eif, self.out)
        self.assertEqual(
            {path.name: path.read_bytes() for path in self.out.iterdir()},
            {
                "kernel": b"the kernel",
                "cmdline": b"console=ttyS0",
                "metadata.json": METADATA,
                "ramdisk-0": b"first ramdisk",
                "ramdisk-1": b"second ramdisk",
            },
        )

    def test_damaged(self) -> None:
        """Of a damaged image nothing is left."""
        self.eif.write_bytes(image()[:-1] + b"\0")
        self.assertRaises(ImageError, extract_image, self.eif, self.out)
        self.assertEqual([path.name for path in self.directory.iterdir()], ["image.eif"])

    def test_existing(self) -> None:
        """Nothing that exists is written over, not even a dangling link."""
        self.out.symlink_to("nowhere")
        self.assertIn("exists already", str(self.assertRaises(ImageError, extract_image, self.eif, self.out)))
        missing = self.directory / "a" / "b"
        self.assertIn("No such", str(self.assertRaises(ImageError, extract_image, self.eif, missing)))
