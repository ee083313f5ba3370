"""Writes a tree as a ramdisk: a cpio archive in the "newc" format (Linux, Documentation/driver-api/early-userspace/
buffer-format.rst), plain or compressed with gzip. The same tree gives the same bytes.

Several ramdisks of an image are concatenated at boot, each padded to 512 bytes.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO, Final, Protocol

from nitroproxy.image.errors import ImageError
from nitroproxy.image.reader import pieces
from nitroproxy.image.tree import Node, Tree

_MAGIC: Final = b"070701"
_TRAILER: Final = "TRAILER!!!"
#: What a field of 8 hexadecimal digits holds.
_MOST: Final = (1 << 32) - 1
_BLOCK: Final = 512
#: The initial window and header flags that make zlib write a gzip member, which has no name and time 0.
_GZIP: Final = 16 + zlib.MAX_WBITS


class _Sink(Protocol):
    """What a ramdisk is written to: a file, or `Gzip`."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""


class Gzip:
    """Compresses what is written to *out* as one gzip member; `finish` must be called. Level 9, by the zlib in use:
    another zlib may give other bytes, which are another PCR2.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._compressor = zlib.compressobj(9, zlib.DEFLATED, _GZIP)

    def write(self, data: bytes, /) -> None:
        """Compress *data*."""
        self._out.write(self._compressor.compress(data))

    def finish(self) -> None:
        """Write what remains."""
        self._out.write(self._compressor.flush())


def write_ramdisk(out: BinaryIO, tree: Tree, *, time: int = 0, compress: bool = True) -> int:
    """Write *tree* to *out*.

    :param time: the latest modification time in the archive, in seconds since 1970; files that are newer get it.
    :returns: bytes of the archive before compression.
    :raises ImageError: a file does not fit the format, or its content is shorter than its size.
    """
    if not compress:
        return _write(out, tree, time)
    gzip = Gzip(out)
    size = _write(gzip, tree, time)
    gzip.finish()
    return size


def _write(out: _Sink, tree: Tree, time: int) -> int:
    names = Counter(node.link for _, node in tree.walk() if node.link is not None)
    numbers: dict[object, int] = {}
    size = 0
    for number, (path, node) in enumerate(tree.walk(), 1):
        # The first name of a file with several carries its content; the others have its number and no content.
        first = node.link is None or node.link not in numbers
        inode = numbers.setdefault(node.link, number) if node.link is not None else number
        links = names[node.link] if node.link is not None else 1 + stat.S_ISDIR(node.mode)
        length = _length(path, node) if first else 0
        try:
            size += _pad(out, _header(path, node, inode, links, length, max(min(node.time, time), 0)), 4)
            for piece in _content(node) if first else ():
                out.write(piece)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error
        out.write(bytes(-length % 4))
        size += length + -length % 4
    size += _pad(out, _header(_TRAILER, Node(0), 0, 1, 0, 0), 4)
    out.write(bytes(-size % _BLOCK))
    return size + -size % _BLOCK


def _pad(out: _Sink, data: bytes, block: int) -> int:
    padded = data + bytes(-len(data) % block)
    out.write(padded)
    return len(padded)


def _header(path: str, node: Node, inode: int, links: int, length: int, time: int) -> bytes:
    name = os.fsencode(path) + b"\0"
    fields = (inode, node.mode, node.uid, node.gid, links, time, length, 0, 0, *node.device, len(name), 0)
    if not all(0 <= field <= _MOST for field in fields):
        raise ImageError(f"{path}: owner, size, time or device number is above {_MOST}, more than a ramdisk can say")
    return _MAGIC + b"".join(b"%08X" % field for field in fields) + name


def _length(path: str, node: Node) -> int:
    return len(os.fsencode(node.target)) if stat.S_ISLNK(node.mode) else node.size


def _content(node: Node) -> Iterator[bytes]:
    if stat.S_ISLNK(node.mode):
        yield os.fsencode(node.target)
    elif node.content is not None:
        with node.content() as file:
            yield from pieces(file, node.size)
