"""Metric families as bytes and back: how the processes of one daemon give each other what they count.

Both ends run the same version (see `nitroproxy.workers.start`), so the bytes are trusted. How they travel is the
caller's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from prometheus_client.core import Metric

_Packed = list[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]]
_read: Final = msgspec.msgpack.Decoder(_Packed).decode


def pack(families: Iterable[Metric]) -> bytes:
    """*families* as bytes; timestamps and exemplars, which we do not use, are left out."""
    packed: _Packed = [
        (family.name, family.documentation, family.type, [tuple(sample[:3]) for sample in family.samples])  # type: ignore[misc]
        for family in families
    ]
    return msgspec.msgpack.encode(packed)


def unpack(data: bytes) -> list[Metric]:
    """The families that `pack` made *data* of.

    :raises msgspec.DecodeError: when it did not.
    """
    families = []
    for name, documentation, kind, samples in _read(data):
        family = Metric(name, documentation, kind)
        for sample, labels, value in samples:
            family.add_sample(sample, labels, value)
        families.append(family)
    return families
