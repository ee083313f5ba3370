"""The curves of the status page, as SVG: the last quarter of an hour, of the gateway and of the enclave.

The two are told apart by the kind of line, so that colour is not needed. What is missing is a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from nitroproxy.telemetry.samples import COUNT, Sample

#: The size that the points are written for; the page stretches it.
_HEIGHT: Final = 48
#: The part of the height that the highest point has.
_TOP: Final = 0.92

Values = Sequence[float | None]


def values_of(samples: Sequence[Sample | None], value: Callable[[Sample], float | None]) -> Values:
    """One value of each sample."""
    return [value(sample) if sample is not None else None for sample in samples]


def highest(*lines: Values) -> float:
    """The highest value of all; 0 without any."""
    return max((value for line in lines for value in line if value is not None), default=0.0)


def chart(gateway: Values, enclave: Values, most: float, label: str) -> str:
    """The chart of two lines.

    :param most: what the top stands for.
    :param label: what it shows, for those who do not see it; escaped.
    """
    lines = "".join(
        f'<polyline class="{kind}" points="{points}"/>'
        for kind, values in (("a", gateway), ("b", enclave))
        for points in _lines(values, most)
    )
    return (
        f'<svg viewBox="0 0 {COUNT - 1} {_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f"{lines}</svg>"
    )


def _lines(values: Values, most: float) -> Iterator[str]:
    """The points of each unbroken part, the newest value at the right."""
    part: list[str] = []
    for x, value in enumerate(values, COUNT - len(values)):
        if value is not None:
            part.append(f"{x},{_HEIGHT - value / most * _HEIGHT * _TOP if most else _HEIGHT:.4g}")
        elif part:
            yield _joined(part)
            part = []
    if part:
        yield _joined(part)


def _joined(part: list[str]) -> str:
    # A single point would not be seen: it becomes a short line.
    if len(part) == 1:
        x, _, y = part[0].partition(",")
        part = [*part, f"{int(x) + 0.8:g},{y}"]
    return " ".join(part)
