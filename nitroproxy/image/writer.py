"""Writes an enclave image. Sections are copied from files in pieces; what has been written is measured on the way."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, BinaryIO

from nitroproxy.image.errors import ImageError
from nitroproxy.image.layout import (
    HEADER_BYTES,
    MAX_SECTIONS,
    MOST_BYTES,
    SECTION_HEADER_BYTES,
    Architecture,
    Header,
    Kind,
    covered,
    pack_crc,
    pack_section,
)
from nitroproxy.image.measurements import Measurements, Meter
from nitroproxy.image.output import replacing
from nitroproxy.image.reader import Image, open_regular, pieces, read_image
from nitroproxy.image.signature import Signature, sign


@dataclass(frozen=True)
class Part:
    """A section to write: the next *size* bytes of *file*, which is read from where it stands."""

    kind: Kind
    file: BinaryIO
    size: int

    @classmethod
    def of(cls, kind: Kind, data: bytes) -> Part:
        """A section from memory."""
        return cls(kind, io.BytesIO(data), len(data))


def write_image(out: IO[bytes], architecture: Architecture, parts: Sequence[Part]) -> Measurements:
    """Write an image to *out*, which can be sought in and is empty.

    :param parts: the sections without a signature, in the file's order.
    :raises ImageError: a section is too large, there are too many, or a file is shorter than it was said to be.
    """
    header = Header(architecture, ())
    return _write(out, header, parts)


def _write(out: IO[bytes], header: Header, parts: Sequence[Part], certificate: bytes | None = None) -> Measurements:
    if len(parts) > MAX_SECTIONS:
        raise ImageError(f"{len(parts)} sections, at most {MAX_SECTIONS} are allowed")
    table, offset = [], HEADER_BYTES
    for part in parts:
        if part.size > MOST_BYTES[part.kind]:
            most = MOST_BYTES[part.kind]
            raise ImageError(f"{part.kind.name.lower()}: {part.size} bytes, at most {most} are allowed")
        table.append((offset, part.size))
        offset += SECTION_HEADER_BYTES + part.size
    head = replace(header, table=tuple(table)).pack()
    out.write(head + pack_crc(0))
    crc, meter = covered(head), Meter()
    for part in parts:
        meter.begin(part.kind)
        section = pack_section(part.kind, part.size)
        out.write(section)
        crc = zlib.crc32(section, crc)
        for piece in pieces(part.file, part.size):
            out.write(piece)
            crc = zlib.crc32(piece, crc)
            meter.update(part.kind, piece)
    out.seek(len(head))
    out.write(pack_crc(crc))
    out.seek(0, os.SEEK_END)
    return meter.finish(certificate)


def write_signed(path: Path, output: Path, certificate_pem: bytes, key_pem: bytes) -> Measurements:
    """Write the image at *path* with a signature to *output*, which may be the same file; an old signature is replaced.

    :raises ImageError: the image is damaged, or certificate and key cannot be used.
    """
    image = read_image(path)
    signature = sign(image.measurements.pcr0, certificate_pem, key_pem)
    with replacing(output) as out:
        return _copy(path, image, signature, out)


def _copy(path: Path, image: Image, signature: Signature, out: IO[bytes]) -> Measurements:
    kept = [section for section in image.sections if section.kind is not Kind.SIGNATURE]
    with ExitStack() as files:
        parts = []
        for section in kept:
            file = files.enter_context(open_regular(path))
            file.seek(section.offset + SECTION_HEADER_BYTES)
            parts.append(Part(section.kind, file, section.size))
        parts.append(Part.of(Kind.SIGNATURE, signature.pack()))
        measured = _write(out, image.header, parts, signature.certificate_der)
    if measured.pcr0 != image.measurements.pcr0:
        raise ImageError(f"{path}: it changed while it was read")
    return measured
