"""Which number stands for which name: a file that all processes of the daemon read, and that outlives them.

A line a name; the number of a name is that of its line, from 0. Lines are only ever appended, before the answer that
tells the number leaves: so an address keeps its name for as long as the file lasts, which is in memory (tmpfs) and
ends with the enclave. A process that finds a number it has not read yet reads on. Nothing is given away when all
numbers are taken: an application may hold on to an address for as long as it likes.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from nitroproxy.transparent.ranges import MOST_NAMES

_PIECE_BYTES: Final = 65536


class NoMoreNumbers(Exception):
    """All numbers are taken."""


class NameTable:
    """The file at *path*, which is made if it is not there.

    :param most: names that it may have.
    :raises OSError: it cannot be opened, or is no file.
    """

    def __init__(self, path: str, most: int = MOST_NAMES) -> None:
        self._most = most
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        #: Bytes that have been read, whole lines only.
        self._read_bytes = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            os.close(self._descriptor)
            raise OSError(None, "it is no file", path)
        self._read_on()

    @property
    def most(self) -> int:
        """How many names can have one."""
        return self._most

    def count(self) -> int:
        """How many names have a number, given by whichever process.

        :raises OSError: the file cannot be read.
        """
        self._read_on()
        return len(self._names)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def name_of(self, number: int) -> str | None:
        """The name with that number; None when no name has it.

        :raises OSError: the file cannot be read.
        """
        if number >= len(self._names):
            self._read_on()
        return self._names[number] if number < len(self._names) else None

    def number_of(self, name: str) -> int:
        """The number of *name*, which gets one if it has none.

        :param name: as `nitroproxy.target.normalize_host` spells it.
        :raises NoMoreNumbers: when there is none left.
        :raises OSError: when it cannot be written, as when memory has run out; then nothing is.
        """
        number = self._numbers.get(name)
        if number is not None:
            return number
        with self._locked():
            self._read_on()
            if name not in self._numbers:
                self._append(name)
        return self._numbers[name]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The daemon before this one may not have ended yet, so the file is locked while it is written."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _append(self, name: str) -> None:
        if len(self._names) >= self._most:
            raise NoMoreNumbers
        # What is left of a line that was not written to its end has been told to nobody.
        os.ftruncate(self._descriptor, self._read_bytes)
        line = name.encode("ascii") + b"\n"
        try:
            whole = os.write(self._descriptor, line) == len(line)
        except OSError:
            os.ftruncate(self._descriptor, self._read_bytes)
            raise
        if not whole:
            os.ftruncate(self._descriptor, self._read_bytes)
            raise OSError(None, "only a part of a name could be written")
        self._read_on()

    def _read_on(self) -> None:
        while piece := os.pread(self._descriptor, _PIECE_BYTES, self._read_bytes):
            whole, newline, _ = piece.rpartition(b"\n")
            if not newline:
                return
            self._read_bytes += len(whole) + 1
            for line in whole.split(b"\n"):
                name = line.decode("ascii", "replace")
                self._numbers.setdefault(name, len(self._names))
                self._names.append(name)
