"""Small enclave images for tests: made in memory, and AWS's vectors in tests/data/eif."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nitroproxy.image.layout import HEADER_BYTES, Architecture, Kind
from nitroproxy.image.writer import Part, write_image

VECTORS: Final = Path(__file__).parent / "data" / "eif"
METADATA: Final = json.dumps({"ImageName": "small", "ImageVersion": "7", "BuildMetadata": {}}).encode()
PARTS: Final = (
    (Kind.KERNEL, b"the kernel"),
    (Kind.CMDLINE, b"console=ttyS0"),
    (Kind.METADATA, METADATA),
    (Kind.RAMDISK, b"first ramdisk"),
    (Kind.RAMDISK, b"second ramdisk"),
)


def image(parts: Sequence[tuple[Kind, bytes]] = PARTS) -> bytes:
    """An image of *parts*, whether they make sense or not."""
    out = io.BytesIO()
    write_image(out, Architecture.X86_64, [Part.of(kind, data) for kind, data in parts])
    return out.getvalue()


def with_crc(raw: bytes | bytearray) -> bytes:
    """*raw* with the CRC-32 that it should have: for what a checksum does not find."""
    crc = zlib.crc32(raw[HEADER_BYTES:], zlib.crc32(raw[: HEADER_BYTES - 4]))
    return bytes(raw[: HEADER_BYTES - 4]) + crc.to_bytes(4) + bytes(raw[HEADER_BYTES:])


def patched(raw: bytes, offset: int, data: bytes) -> bytes:
    """*raw* with *data* at *offset*, and a CRC-32 that fits."""
    return with_crc(raw[:offset] + data + raw[offset + len(data) :])
