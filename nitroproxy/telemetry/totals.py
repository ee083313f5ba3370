"""The metrics of several processes that do one work, as one: what each counted is added up.

Knows nothing of how the processes reach each other: metrics travel as the bytes that `pack` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from prometheus_client.core import Metric

#: What must not be added up: the same in every process, or only as good as the worst.
_OTHERWISE: Final[Mapping[str, Callable[[float, float], float]]] = {
    "nitroproxy_build_info": max,
    "nitroproxy_config_last_reload_successful": min,
    "nitroproxy_config_last_reload_success_timestamp_seconds": min,
}
#: Kinds that only grow: they stay in the total when the process that counted has gone.
_GROWING: Final = frozenset({"counter", "histogram"})

_Packed = list[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]]
_read: Final = msgspec.msgpack.Decoder(_Packed).decode


def pack(families: Iterable[Metric]) -> bytes:
    """*families* as bytes."""
    packed: _Packed = [
        (family.name, family.documentation, family.type, [tuple(sample[:3]) for sample in family.samples])  # type: ignore[misc]
        for family in families
    ]
    return msgspec.msgpack.encode(packed)


def unpack(data: bytes) -> list[Metric]:
    """What `pack` made *data* of.

    :raises msgspec.DecodeError: when it did not.
    """
    families = []
    for name, documentation, kind, samples in _read(data):
        family = Metric(name, documentation, kind)
        for sample, labels, value in samples:
            family.add_sample(sample, labels, value)
        families.append(family)
    return families


def of_worker(worker: str, families: Iterable[Metric]) -> list[Metric]:
    """*families* with what is a process's own (``process_*``) labelled with its name."""
    families = list(families)
    for family in families:
        if family.name.startswith("process_"):
            family.samples = [sample._replace(labels={**sample.labels, "worker": worker}) for sample in family.samples]
    return families


def growing(families: Iterable[Metric]) -> list[Metric]:
    """Those of *families* that count in the total when their process has gone."""
    return [family for family in families if family.type in _GROWING and not family.name.startswith("process_")]


def total(families: Iterable[Metric]) -> list[Metric]:
    """Families of one name made one, and samples with the same labels one sample."""
    found: dict[str, tuple[Metric, dict[tuple[Any, ...], Any]]] = {}
    for family in families:
        empty = Metric(family.name, family.documentation, family.type)
        add = _OTHERWISE.get(family.name, float.__add__)
        samples = found.setdefault(family.name, (empty, {}))[1]
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            known = samples.get(key)
            value = float(sample.value)
            samples[key] = sample._replace(value=value if known is None else add(known.value, value))
    for family, samples in found.values():
        family.samples = list(samples.values())
    return [family for family, _ in found.values()]
