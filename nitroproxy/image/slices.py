"""A part of an open file as a file of its own, so that many parts can be read independently."""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO, cast


class Slice(io.RawIOBase):
    """Bytes *offset* to *offset* + *size* of the file behind *descriptor*, which its owner keeps open."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._offset = offset
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """As other files do."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Read without moving the other slices' position."""
        size = max(min(len(buffer), self._size - self._position), 0)
        data = os.pread(self._descriptor, size, self._offset + self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def slice_of(descriptor: int, offset: int, size: int) -> BinaryIO:
    """A `Slice`, of which its users need no more than what a binary file does."""
    return cast(BinaryIO, Slice(descriptor, offset, size))
