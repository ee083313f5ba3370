"""The packets of a vsock device (virtio 1.2, section 5.10.6)."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from typing import Final

#: A packet's header; its data follow.
HEADER: Final = struct.Struct("<QQIIIHHIII")
#: Operations, what a shutdown is of, and the kind of a packet of a stream.
REQUEST, RESPONSE, RST, SHUTDOWN, RW, CREDIT, CREDIT_REQUEST = range(1, 8)
NO_MORE_READS, NO_MORE_WRITES = 1, 2
STREAM: Final = 1


@dataclass(frozen=True)
class Header:
    """The header of a packet, field by field."""

    source: int
    target: int
    source_port: int
    target_port: int
    length: int
    kind: int
    operation: int
    flags: int
    window: int
    forwarded: int

    def pack(self) -> bytes:
        """Its bytes."""
        return HEADER.pack(*astuple(self))
