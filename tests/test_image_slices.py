"""Parts of one file are read independently."""

from __future__ import annotations

import os
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image.slices import slice_of


class SliceTests(SynchronousTestCase):
    """`slice_of`."""

    def test_independent(self) -> None:
        """Two slices end at their own ends, whatever the other has read."""
        with tempfile.TemporaryFile() as file:
            file.write(b"0123456789")
            file.flush()
            first, second = slice_of(file.fileno(), 1, 3), slice_of(file.fileno(), 6, 9)
            self.assertEqual((first.read(2), second.read(2), first.read(9), second.read()), (b"12", b"67", b"3", b"89"))
            self.assertEqual(first.read(1), b"")

    def test_seek(self) -> None:
        """Positions are the slice's own."""
        with tempfile.TemporaryFile() as file:
            file.write(b"0123456789")
            file.flush()
            part = slice_of(file.fileno(), 2, 4)
            self.assertEqual(part.seek(0, os.SEEK_END), 4)
            part.seek(1)
            self.assertEqual(part.seek(1, os.SEEK_CUR), 2)
            self.assertEqual((part.read(), part.tell()), (b"45", 4))
