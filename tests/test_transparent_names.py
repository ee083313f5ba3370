"""The file of names: `nitroproxy.transparent.names`."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.transparent.names import NameTable, NoMoreNumbers


class NameTableTests(SynchronousTestCase):
    """One file, several processes."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def table(self, **more: Any) -> NameTable:
        """A process's view."""
        table = NameTable(str(self.path), **more)
        self.addCleanup(table.close)
        return table

    def test_numbers(self) -> None:
        """A name has one number, from 0 on, and a number one name."""
        table = self.table()
        self.assertEqual([table.number_of(name) for name in ("a.example", "b.example", "a.example")], [0, 1, 0])
        self.assertEqual([table.name_of(number) for number in (0, 1, 2)], ["a.example", "b.example", None])
        self.assertEqual(table.count(), 2)

    def test_others_read_on(self) -> None:
        """A process that has read the file before finds what another has added, both ways round, and both agree."""
        first, second = self.table(), self.table()
        self.assertEqual(first.number_of("a.example"), 0)
        self.assertEqual(second.number_of("b.example"), 1)
        self.assertEqual(first.number_of("b.example"), 1)
        self.assertEqual(second.name_of(0), "a.example")
        self.assertEqual(first.number_of("c.example"), second.number_of("c.example"))

    def test_survives(self) -> None:
        """The number is in the file before it is told: a process killed then has not given it to another name."""
        self.table().number_of("a.example")
        self.assertEqual(self.path.read_bytes(), b"a.example\n")
        self.assertEqual(self.table().name_of(0), "a.example")

    def test_torn_line(self) -> None:
        """What a process that was killed has left of a line is told to nobody: it is no name, and is overwritten."""
        self.table().number_of("a.example")
        with self.path.open("ab") as file:
            file.write(b"half-a-na")
        table = self.table()
        self.assertIsNone(table.name_of(1))
        self.assertEqual(table.number_of("b.example"), 1)
        self.assertEqual(self.path.read_bytes(), b"a.example\nb.example\n")

    def test_full(self) -> None:
        """When all numbers are taken a new name gets none, the others keep theirs, and nothing is written."""
        table = self.table(most=2)
        for name in ("a.example", "b.example"):
            table.number_of(name)
        self.assertRaises(NoMoreNumbers, table.number_of, "c.example")
        self.assertEqual((table.number_of("b.example"), self.table(most=2).count()), (1, 2))
        self.assertRaises(NoMoreNumbers, self.table(most=2).number_of, "c.example")

    def test_many(self) -> None:
        """A file of many pieces is read whole."""
        names = [f"{'x' * 60}.{number}.example" for number in range(5000)]
        self.path.write_text("".join(f"{name}\n" for name in names))
        table = self.table()
        self.assertEqual((table.count(), table.name_of(4999), table.number_of(names[77])), (5000, names[4999], 77))

    def test_no_room(self) -> None:
        """Where memory has run out the name gets no number and the file stays whole; later it gets one."""
        table = self.table()
        table.number_of("a.example")
        write = os.write

        def half(descriptor: int, data: bytes) -> int:
            return write(descriptor, data[:3])

        def none(descriptor: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        for bad in (half, none):
            self.patch(os, "write", bad)
            self.assertRaises(OSError, table.number_of, "b.example")
            self.patch(os, "write", write)
            self.assertEqual(self.path.read_bytes(), b"a.example\n")
        self.assertEqual(table.number_of("b.example"), 1)

    def test_no_file(self) -> None:
        """What is no file is refused: a directory, a link, a device."""
        directory = Path(self.mktemp())
        directory.mkdir()
        link = Path(self.mktemp())
        link.symlink_to(self.path)
        for path in (directory, link, Path(os.devnull)):
            self.assertRaises(OSError, NameTable, str(path))

    def test_only_ours(self) -> None:
        """Nobody else may read it or write to it."""
        self.table()
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
