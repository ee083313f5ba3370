"""The enclave image format (EIF) as tables: the header, the section header, and the rules that their fields obey.

An EIF is a 548-byte header and up to 32 sections, one directly after the other: 12 bytes of section header, then the
data. All integers are big-endian. The format is defined by AWS's `aws-nitro-enclaves-image-format`, version 4.
This module knows single headers; `reader` knows files.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nitroproxy.image.errors import ImageError

MAGIC: Final = b".eif"
#: The version that is written; older ones, which have no metadata, are read.
VERSION: Final = 4
_OLDEST_VERSION: Final = 2
_METADATA_SINCE: Final = 4
#: The header's flag for an image of aarch64; without it the image is for x86_64.
_ARM64: Final = 1
MAX_SECTIONS: Final = 32
#: Magic, version, flags, default memory in bytes, default CPUs, reserved, number of sections, offsets, sizes, unused.
_FIELDS: Final = struct.Struct(">4sHHQQHH32Q32QI")
_CRC: Final = struct.Struct(">I")
#: Bytes of the header; the last four are the CRC-32 of everything else in the file.
HEADER_BYTES: Final = _FIELDS.size + _CRC.size
_SECTION: Final = struct.Struct(">HHQ")
SECTION_HEADER_BYTES: Final = _SECTION.size


class Kind(enum.IntEnum):
    """What a section holds."""

    KERNEL = 1
    CMDLINE = 2
    RAMDISK = 3
    SIGNATURE = 4
    METADATA = 5


class Architecture(enum.Enum):
    """The processor that an image is for."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"


#: Bytes of a section's data at most, so that a reader's memory has a bound. Kernel and ramdisks are streamed; 4 GiB is
#: more than a ramdisk may hold of one file. x86_64 and arm64 kernels take 2,048 bytes of command line; nitro-cli
#: takes signatures up to 32 KiB.
MOST_BYTES: Final = {
    Kind.KERNEL: 1 << 28,
    Kind.CMDLINE: 2048,
    Kind.RAMDISK: 1 << 32,
    Kind.SIGNATURE: 32 * 1024,
    Kind.METADATA: 1 << 20,
}


@dataclass(frozen=True)
class Section:
    """One section's place in a file.

    :ivar offset: of its section header, in bytes from the start of the file.
    :ivar size: of its data, in bytes.
    """

    kind: Kind
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + SECTION_HEADER_BYTES + self.size


@dataclass(frozen=True)
class Header:
    """The header of a file.

    :ivar default_memory: bytes of memory for an enclave that is started without a size; nitro-cli ignores it.
    :ivar table: offset and size of each section, in the file's order.
    :ivar crc: CRC-32 of everything else in the file.
    """

    architecture: Architecture
    table: Sequence[tuple[int, int]]
    version: int = VERSION
    default_memory: int = 1 << 30
    default_cpus: int = 2
    crc: int = 0

    def pack(self) -> bytes:
        """The header's bytes without the CRC, which `pack_crc` makes when everything has been written."""
        offsets, sizes = ([entry[n] for entry in self.table] for n in (0, 1))
        padding = [0] * (MAX_SECTIONS - len(self.table))
        flags = _ARM64 if self.architecture is Architecture.AARCH64 else 0
        fixed = (MAGIC, self.version, flags, self.default_memory, self.default_cpus, 0, len(self.table))
        return _FIELDS.pack(*fixed, *offsets, *padding, *sizes, *padding, 0)


def pack_crc(crc: int) -> bytes:
    """The last field of the header."""
    return _CRC.pack(crc)


def covered(header: bytes) -> int:
    """The CRC-32 of a header's bytes as far as the file's CRC covers them."""
    return zlib.crc32(header[: _FIELDS.size])


def unpack_header(raw: bytes) -> Header:
    """Read a header.

    :param raw: the first `HEADER_BYTES` of the file, or fewer when it is shorter.
    :raises ImageError: naming the field that cannot be.
    """
    if not raw.startswith(MAGIC):
        raise ImageError(f"not an enclave image: it starts with {raw[:4]!r}, not with {MAGIC!r}")
    if len(raw) < HEADER_BYTES:
        raise ImageError(f"cut off: {len(raw)} bytes, and the header alone has {HEADER_BYTES}")
    _, version, flags, memory, cpus, reserved, count, *table = _FIELDS.unpack_from(raw)
    offsets, sizes, unused = table[:MAX_SECTIONS], table[MAX_SECTIONS:-1], table[-1]
    if not _OLDEST_VERSION <= version <= VERSION:
        raise ImageError(f"version: expected {_OLDEST_VERSION} to {VERSION}, got {version}")
    if flags & ~_ARM64:
        raise ImageError(f"flags: only bit 0 (aarch64) is known, got {flags:#06x}")
    if reserved or unused:
        raise ImageError("reserved fields of the header: expected zeros")
    if not 1 <= count <= MAX_SECTIONS:
        raise ImageError(f"number of sections: expected 1 to {MAX_SECTIONS}, got {count}")
    if any(offsets[count:]) or any(sizes[count:]):
        raise ImageError(f"table of sections: expected zeros after the {count} sections in use")
    architecture = Architecture.AARCH64 if flags & _ARM64 else Architecture.X86_64
    (crc,) = _CRC.unpack_from(raw, _FIELDS.size)
    pairs = tuple(zip(offsets[:count], sizes[:count], strict=True))
    return Header(architecture, pairs, version, memory, cpus, crc)


def pack_section(kind: Kind, size: int) -> bytes:
    """A section header."""
    return _SECTION.pack(kind, 0, size)


def unpack_section(raw: bytes, offset: int, size: int) -> Section:
    """Read a section header.

    :param raw: its `SECTION_HEADER_BYTES`.
    :param offset: where it is, by the header's table.
    :param size: of the data, by the header's table.
    :raises ImageError: when it is of no known kind, contradicts the table or is larger than its kind may be.
    """
    number, flags, length = _SECTION.unpack(raw)
    try:
        kind = Kind(number)
    except ValueError:
        raise ImageError(f"section at {offset}: type {number} is unknown") from None
    name = f"{kind.name.lower()} section at {offset}"
    if flags:
        raise ImageError(f"{name}: flags: expected 0, got {flags:#06x}")
    if length != size:
        raise ImageError(f"{name}: it says {length} bytes, the header's table says {size}")
    if size > MOST_BYTES[kind]:
        raise ImageError(f"{name}: {size} bytes, at most {MOST_BYTES[kind]} are allowed")
    return Section(kind, offset, size)


def check_order(version: int, sections: Sequence[Section]) -> None:
    """Refuse sections that do not make one bootable image.

    :raises ImageError: a kind is missing, there are too many of it, or a ramdisk comes before kernel and command line.
    """
    kinds = [section.kind for section in sections]
    for kind, least, most in (
        (Kind.KERNEL, 1, 1),
        (Kind.CMDLINE, 1, 1),
        (Kind.RAMDISK, 1, MAX_SECTIONS),
        (Kind.METADATA, 1 if version >= _METADATA_SINCE else 0, 1),
        (Kind.SIGNATURE, 0, 1),
    ):
        if not least <= kinds.count(kind) <= most:
            wanted = f"{least}" if least == most else f"{least} to {most}"
            raise ImageError(f"sections: expected {wanted} of kind {kind.name.lower()}, got {kinds.count(kind)}")
    first = kinds.index(Kind.RAMDISK)
    if first < max(kinds.index(Kind.KERNEL), kinds.index(Kind.CMDLINE)):
        raise ImageError("sections: a ramdisk comes before the kernel or the command line")
