"""Draws a run as SVG: a dot for each contender on a logarithmic axis, with its spread. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final

from benchmarks.figures import QUANTITIES, CaseResult, Figure
from benchmarks.results import Results
from benchmarks.table import facts, number

#: The cases that are drawn, and the labels of their axes.
PANELS: Final = {
    "gateway": "Gateway hop, kept-alive GET of 1 KiB: µs of CPU a request",
    "chain": "Whole chain with TLS 1.3: µs of CPU a request",
    "tunnels": "New tunnel through the relay: µs of CPU",
    "relay-down": "Relay, bulk: seconds of CPU a GB",
}
_WIDTH: Final = 760
_LEFT: Final = 220
_RIGHT: Final = 90
_LINE: Final = 22
_STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600 } .small { font-size: 11px }
.axis { stroke: #d0d7de } .peer { fill: #6e7781; stroke: #6e7781 } .ours { fill: #0969da; stroke: #0969da }
.background { fill: #ffffff }
@media (prefers-color-scheme: dark) {
text { fill: #c9d1d9 } .axis { stroke: #30363d } .peer { fill: #8b949e; stroke: #8b949e }
.ours { fill: #58a6ff; stroke: #58a6ff } .background { fill: #0d1117 }
}
"""


def chart(results: Results) -> str:
    """Draw the cases of `PANELS` that the run has, as SVG. Less is better in all of them."""
    parts: list[str] = []
    top = 12
    for case in results.cases:
        if case.name in PANELS and any(case.key in row.figures for row in case.rows):
            panel, height = _panel(case, PANELS[case.name], top)
            parts += panel
            top += height
    told = {name: results.machine[name] for name in ("cpu", "cores", "kernel") if name in results.machine}
    about = f"Less is better. Median and quartiles; {results.when[:10]}, commit {results.commit}, {facts(told)}."
    parts.append(_text(12, top + 14, about, "small"))
    height = top + 26
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="CPU time of nitroproxy and other proxies">'
    )
    background = f'<rect class="background" width="{_WIDTH}" height="{height}"/>'
    return "\n".join([head, f"<style>{_STYLE}</style>", background, *parts, "</svg>", ""])


def _panel(case: CaseResult, title: str, top: int) -> tuple[list[str], int]:
    """One case, its contenders ordered by median; the lines and their height."""
    rows = sorted(
        ((row.contender, row.figures[case.key]) for row in case.rows if case.key in row.figures),
        key=lambda row: row[1].median,
    )
    low, high = axis([figure for _, figure in rows])
    parts = [_text(12, top + 14, title, "title")]
    bottom = top + 26 + _LINE * len(rows)
    for power in range(low, high + 1):
        x = place(10.0**power, low, high)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{top + 24}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 13, f"{10.0**power:g}", "small", "middle"))
    for index, (contender, figure) in enumerate(rows):
        y = top + 24 + _LINE * index + _LINE / 2
        kind = "ours" if contender.startswith("nitroproxy") else "peer"
        near, far = (place(value, low, high) for value in figure.spread)
        x = place(figure.median, low, high)
        weight = "title" if kind == "ours" else ""
        parts += [
            _text(_LEFT - 12, y + 4, contender, weight, "end"),
            f'<line class="{kind}" x1="{near:.1f}" x2="{far:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke-width="3"/>',
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>',
            _text(max(far, x) + 10, y + 4, number(figure.median, QUANTITIES[case.key].digits), weight),
        ]
    return parts, bottom + 30 - top


def axis(figures: Sequence[Figure]) -> tuple[int, int]:
    """The powers of ten between which all of *figures* lie."""
    least = min(figure.spread[0] for figure in figures)
    most = max(figure.spread[1] for figure in figures)
    low = math.floor(math.log10(least))
    return low, max(math.ceil(math.log10(most)), low + 1)


def place(value: float, low: int, high: int) -> float:
    """Where *value* stands on an axis from 10^low to 10^high, in pixels."""
    share = (math.log10(value) - low) / (high - low)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'
