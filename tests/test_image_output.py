"""A file has its name when it is whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image.errors import ImageError
from nitroproxy.image.output import replacing


class ReplacingTests(SynchronousTestCase):
    """`replacing`."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"old")

    def test_whole(self) -> None:
        """The old content is there until the block ends; the mode does not depend on the umask."""
        before = os.umask(0o077)
        try:
            with replacing(self.path) as file:
                file.write(b"new")
                self.assertEqual(self.path.read_bytes(), b"old")
        finally:
            os.umask(before)
        self.assertEqual(self.path.read_bytes(), b"new")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o644)

    def test_failed(self) -> None:
        """After an exception the old file is there, and nothing else."""

        def fail(error: Exception) -> None:
            with replacing(self.path) as file:
                file.write(b"half")
                raise error

        self.assertRaises(KeyError, fail, KeyError())
        disk_full = self.assertRaises(ImageError, fail, OSError(28, "No space left on device"))
        self.assertEqual(str(disk_full), f"{self.path}: No space left on device")
        self.assertEqual(self.path.read_bytes(), b"old")
        self.assertEqual(list(self.path.parent.glob(f".{self.path.name}*")), [])

    def test_no_directory(self) -> None:
        """A directory that is missing is named."""

        def write() -> None:
            with replacing(self.path / "below" / "file"):
                pass

        self.assertIn("below/file: ", str(self.assertRaises(ImageError, write)))
