"""Measurements: figures of several runs, ratios of paired runs, reasons for missing ones. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Final, Literal

#: One run of one contender: the value of each quantity, by the quantity's name.
Sample = Mapping[str, float]


class Unmeasured(Exception):
    """A figure could not be measured; the message says why, and is shown in its place."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity that is measured.

    :ivar label: the table's heading.
    :ivar digits: digits after the decimal point.
    :ivar better: which direction is better.
    """

    label: str
    unit: str
    digits: int = 0
    better: Literal["less", "more"] = "less"


#: Every quantity that a `Sample` may hold.
QUANTITIES: Final[dict[str, Quantity]] = {
    "cpu": Quantity("CPU", "µs"),
    "cpu_host": Quantity("of it host", "µs"),
    "cpu_enclave": Quantity("of it enclave", "µs"),
    "cpu_relay": Quantity("of it relay", "µs"),
    "cpu_rest": Quantity("rest", "µs"),
    "rate": Quantity("rate", "/s", better="more"),
    "p50": Quantity("p50", "ms", 2),
    "p99": Quantity("p99", "ms", 2),
    "gb_per_s": Quantity("throughput", "GB/s", 2, better="more"),
    "cpu_per_gb": Quantity("CPU", "s/GB", 2),
    "growth": Quantity("memory growth", "MiB", 1),
    "start": Quantity("first answer", "s", 2),
    "start_cpu": Quantity("CPU", "s", 2),
    "rss": Quantity("RSS", "MiB", 1),
    "per_connection": Quantity("per connection", "KiB", 1),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """The values of one quantity over several runs, or the ratios of several pairs.

    :ivar values: in the order in which they were measured; at least one.
    """

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles; for fewer than four values the least and the greatest."""
        if len(self.values) < 4:
            return min(self.values), max(self.values)
        low, _, high = quantiles(self.values, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True, slots=True)
class Row:
    """One contender in one case.

    :ivar figures: by quantity.
    :ivar ratio: this contender's key quantity divided by the subject's, pair by pair; None for the subject.
    :ivar unmeasured: why there are no figures; None when there are.
    """

    contender: str
    figures: Mapping[str, Figure] = field(default_factory=dict)
    ratio: Figure | None = None
    unmeasured: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A requirement compared with the measurement.

    :ivar measured: the measured value; None when there is none.
    """

    requirement: str
    text: str
    bound: float
    measured: float | None
    better: Literal["less", "more"] = "less"

    @property
    def met(self) -> bool | None:
        """Whether the requirement is met; None when nothing was measured."""
        if self.measured is None:
            return None
        return self.measured <= self.bound if self.better == "less" else self.measured >= self.bound


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One table.

    :ivar key: the quantity of which ratios are taken.
    :ivar rows: the rows, the subject's first.
    """

    name: str
    title: str
    key: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()


def figures_of(samples: Sequence[Sample]) -> dict[str, Figure]:
    """The figures of several runs of one contender, without quantities that some run lacks."""
    common = [name for name in samples[0] if all(name in sample for sample in samples)]
    return {name: Figure(tuple(sample[name] for sample in samples)) for name in common}


def ratio_of(pairs: Sequence[tuple[Sample, Sample]], key: str) -> Figure:
    """The second of each pair divided by the first.

    :raises Unmeasured: when a first is zero.
    """
    if any(first[key] == 0 for first, _ in pairs):
        raise Unmeasured(f"a run's {QUANTITIES[key].label} is zero: there is no ratio to it")
    return Figure(tuple(second[key] / first[key] for first, second in pairs))


def median_of(rows: Sequence[Row], contender: str, quantity: str) -> float | None:
    """The row of *contender*, or None."""
    for row in rows:
        if row.contender == contender and quantity in row.figures:
            return row.figures[quantity].median
    return None
