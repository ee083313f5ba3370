"""The charts of the HTML report, as SVG that names its scales and needs nothing beside it.

Values only: it knows neither the page nor how a run goes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final

from nitroproxy.demo.results import CaseResult, percentile

#: The percentiles that are shown of concurrent requests.
MARKS: Final = (50, 90, 99)

#: Sizes in units of the view box.
_WIDTH: Final = 860
_LABELS: Final = 215
_VALUES: Final = 120
_BAR_ROW: Final = 26
_PLOT: Final = _WIDTH - _LABELS - _VALUES
_SORTED_HEIGHT: Final = 160
_TEXT_HEIGHT: Final = 15


def text_of(value: str) -> str:
    """*value* as text of a page, in quotes or not; what UTF-8 cannot hold is replaced."""
    return escape(value.encode(errors="replace").decode())


def time_per_case(results: Sequence[CaseResult]) -> str:
    """A horizontal bar for each case, on a logarithmic scale: cases take from a few to thousands of milliseconds."""
    longest = max((result.milliseconds for result in results), default=1.0)
    decades = max(1, math.ceil(math.log10(max(longest, 1.0))))
    height = _BAR_ROW * len(results) + 52
    axis = height - 42
    title = "Milliseconds per case, logarithmic scale"
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{title}">']
    for decade in range(decades + 1):
        x = _LABELS + _PLOT * decade / decades
        parts.append(f'<line x1="{x:.1f}" y1="8" x2="{x:.1f}" y2="{axis}"/>')
        parts.append(f'<text class="quiet" x="{x:.1f}" y="{axis + 16}" text-anchor="middle">{10**decade} ms</text>')
    middle = _LABELS + _PLOT / 2
    parts.append(f'<text class="quiet" x="{middle:.1f}" y="{axis + 34}" text-anchor="middle">{title}</text>')
    for index, result in enumerate(results):
        y = 10 + _BAR_ROW * index
        length = max(2.0, _PLOT * math.log10(max(result.milliseconds, 1.0)) / decades)
        parts.append(
            f'<text x="{_LABELS - 8}" y="{y + 14}" text-anchor="end">{text_of(result.name)}</text>'
            f'<rect class="{result.outcome.value}" x="{_LABELS}" y="{y + 2}" width="{length:.1f}" height="16" rx="3"/>'
            f'<text x="{_LABELS + length + 6:.1f}" y="{y + 14}">{result.milliseconds:.1f} ms</text>'
        )
    return "".join(parts) + "</svg>"


def sorted_latencies(ascending: Sequence[float]) -> str:
    """A bar for each concurrent request, fastest first, on a linear scale, with a labelled line for each percentile.

    :param ascending: durations in milliseconds, in ascending order; not empty.
    """
    left, top, right = 20, 34, _WIDTH - _VALUES
    scale = _SORTED_HEIGHT / max(ascending[-1], 0.001)
    step = (right - left) / len(ascending)
    bottom = top + _SORTED_HEIGHT
    title = "Milliseconds of each concurrent request, fastest first, linear scale from 0"
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {bottom + 30}" role="img" aria-label="{title}">',
        f'<text class="quiet" x="{left}" y="18">{title}</text>',
    ]
    for index, latency in enumerate(ascending):
        bar = max(1.0, latency * scale)
        parts.append(
            f'<rect x="{left + index * step:.1f}" y="{bottom - bar:.1f}" width="{max(1.0, step - 2):.1f}" '
            f'height="{bar:.1f}"/>'
        )
    parts.append(_percentile_lines(ascending, left, right, bottom, scale))
    parts.append(f'<text class="quiet" x="{left}" y="{bottom + 20}">fastest {ascending[0]:.1f} ms</text>')
    parts.append(
        f'<text class="quiet" x="{right}" y="{bottom + 20}" text-anchor="end">slowest {ascending[-1]:.1f} ms</text>'
    )
    return "".join(parts) + "</svg>"


def _percentile_lines(ascending: Sequence[float], left: int, right: int, bottom: int, scale: float) -> str:
    parts = []
    label = float("-inf")
    for mark in reversed(MARKS):
        value = percentile(ascending, mark)
        y = bottom - value * scale
        # Labels of percentiles that are close stand below each other.
        label = max(y + 4, label + _TEXT_HEIGHT)
        parts.append(f'<line class="mark" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{right + 6}" y="{label:.1f}">p{mark} {value:.1f} ms</text>')
    return "".join(parts)
