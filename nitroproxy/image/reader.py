"""Reads an enclave image: checks everything that the format fixes, measures it, and hands out its sections.

Sizes are checked against the file's before any data is read; the data is read once, in pieces, and only command line,
signature and metadata are kept. nitro-cli's describe-eif exits with 0 for a damaged file; this refuses it.
"""

from __future__ import annotations

import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from nitroproxy.image.errors import ImageError
from nitroproxy.image.layout import (
    HEADER_BYTES,
    SECTION_HEADER_BYTES,
    Header,
    Kind,
    Section,
    check_order,
    covered,
    unpack_header,
    unpack_section,
)
from nitroproxy.image.measurements import Measurements, Meter
from nitroproxy.image.signature import Signature, read_signature

#: Bytes that are read at a time.
PIECE_BYTES: Final = 1 << 20
_KEPT: Final = (Kind.CMDLINE, Kind.SIGNATURE, Kind.METADATA)

#: Given each piece of each section's data, in the file's order.
Take = Callable[[Section, bytes], object]


@dataclass(frozen=True)
class Image:
    """An image that has been checked.

    :ivar size: of the file in bytes.
    :ivar metadata: the JSON object of the metadata section; empty in versions that have none.
    :ivar signature: None when the image is not signed.
    """

    header: Header
    sections: Sequence[Section]
    size: int
    cmdline: str
    metadata: Mapping[str, Any]
    signature: Signature | None
    measurements: Measurements


def read_image(path: Path, take: Take | None = None) -> Image:
    """Read and check the image at *path*.

    :param take: sees all data; the caller must discard it when this raises.
    :raises ImageError: naming the file and what is wrong with it.
    """
    try:
        with open_regular(path) as file:
            return read(file, take)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """A regular file for reading; a device or pipe, which has no size to check against, is refused.

    :raises ImageError: it cannot be opened or read, or it is no regular file.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ImageError("not a regular file")
            yield file
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error


def read(file: BinaryIO, take: Take | None = None) -> Image:
    """Read and check the image in *file*, which can be sought in; see `read_image`."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    raw = _exactly(file, min(HEADER_BYTES, size))
    header = unpack_header(raw)
    sections = _sections(file, header, size)
    meter, kept, crc = Meter(), dict[Kind, bytes](), covered(raw)
    for section in sections:
        meter.begin(section.kind)
        file.seek(section.offset)
        crc = zlib.crc32(_exactly(file, SECTION_HEADER_BYTES), crc)
        for piece in pieces(file, section.size):
            crc = zlib.crc32(piece, crc)
            meter.update(section.kind, piece)
            if take is not None:
                take(section, piece)
            if section.kind in _KEPT:
                kept[section.kind] = kept.get(section.kind, b"") + piece
    if crc != header.crc:
        raise ImageError(f"damaged: the CRC-32 is {crc:08x}, and {header.crc:08x} is written in the header")
    return _image(header, sections, size, kept, meter)


def _sections(file: BinaryIO, header: Header, size: int) -> list[Section]:
    """The sections, whose headers alone have been read; they fill the file without a gap."""
    sections, end = [], HEADER_BYTES
    for offset, length in header.table:
        if offset != end:
            raise ImageError(f"table of sections: the next section must be at {end}, and {offset} is written")
        if offset + SECTION_HEADER_BYTES + length > size:
            raise ImageError(f"cut off: the section at {offset} has {length} bytes, and the file ends at {size}")
        file.seek(offset)
        sections.append(unpack_section(_exactly(file, SECTION_HEADER_BYTES), offset, length))
        end = sections[-1].end
    if end != size:
        raise ImageError(f"{size - end} bytes follow the last section")
    check_order(header.version, sections)
    return sections


def _image(header: Header, sections: Sequence[Section], size: int, kept: Mapping[Kind, bytes], meter: Meter) -> Image:
    signature = read_signature(kept.get(Kind.SIGNATURE, b"")) if Kind.SIGNATURE in _kinds(sections) else None
    measurements = meter.finish(signature.certificate_der if signature else None)
    if signature is not None:
        signature.verify(measurements.pcr0)
    try:
        cmdline = kept.get(Kind.CMDLINE, b"").decode()
    except UnicodeDecodeError:
        raise ImageError("command line: not UTF-8") from None
    metadata = _metadata(kept.get(Kind.METADATA, b"")) if Kind.METADATA in _kinds(sections) else {}
    return Image(header, tuple(sections), size, cmdline, metadata, signature, measurements)


def _kinds(sections: Sequence[Section]) -> set[Kind]:
    return {section.kind for section in sections}


def _metadata(raw: bytes) -> dict[str, Any]:
    try:
        metadata = json.loads(raw)
    except (ValueError, RecursionError):
        raise ImageError("metadata: not JSON") from None
    if not isinstance(metadata, dict):
        raise ImageError(f"metadata: expected a JSON object, got {type(metadata).__name__}")
    return metadata


def pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next *size* bytes of *file* in pieces.

    :raises ImageError: the file ends before.
    """
    while size:
        piece = file.read(min(size, PIECE_BYTES))
        if not piece:
            raise ImageError(f"{size} bytes are missing at the end: the file was cut off while it was read")
        size -= len(piece)
        yield piece


def _exactly(file: BinaryIO, size: int) -> bytes:
    return b"".join(pieces(file, size))
