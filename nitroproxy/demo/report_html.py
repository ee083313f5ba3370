"""The report for a person: one HTML page that holds all it needs, for light and dark screens.

Everything that is not this module's own text is escaped, and the page's own policy forbids it to load or run anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from string import Template
from typing import Final

from nitroproxy.demo.results import CaseResult, Outcome, Report, percentile

_MARKS: Final = (50, 90, 99)
_WIDTH: Final = 860
_LABELS: Final = 215
_VALUES: Final = 90
_BAR_ROW: Final = 26
_PLOT: Final = _WIDTH - _LABELS - _VALUES
_SORTED_HEIGHT: Final = 160

_PAGE: Final = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>nitroproxy demo: $summary</title>
<style>
:root { color-scheme: light dark; --text: #1c2024; --quiet: #5b6470; --page: #fbfbfc; --card: #ffffff; --line: #d9dde3;
  --bar: #3b6fd4; --passed: #1a7f43; --failed: #c2282d; --error: #a8480a; --skipped: #6b7280; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9ee; --quiet: #9aa4b2; --page: #14171c; --card: #1c2027;
  --line: #343b46; --bar: #7aa5f5; --passed: #4fc47f; --failed: #ff7b7f; --error: #f2a15f; --skipped: #9aa4b2; } }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1rem 4rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; } .quiet { color: var(--quiet); } code, td.number { font-variant-numeric: tabular-nums; }
.verdict { font-weight: 600; font-size: 1.1rem; margin-top: .75rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; padding: 0; list-style: none; }
.tiles li { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .5rem 1rem; }
.tiles b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .45rem .75rem; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; } td.number, th.number { text-align: right; white-space: nowrap; }
td.detail { overflow-wrap: anywhere; min-width: 18rem; }
.passed { color: var(--passed); } .failed { color: var(--failed); } .error { color: var(--error); }
.skipped { color: var(--skipped); } td.result { font-weight: 600; }
svg { display: block; width: 100%; min-width: 36rem; height: auto; font: 13px system-ui, sans-serif; }
svg text { fill: var(--text); } svg text.quiet { fill: var(--quiet); } svg line { stroke: var(--line); }
svg line.mark { stroke: var(--text); stroke-dasharray: 4 3; } rect { fill: var(--bar); }
rect.failed { fill: var(--failed); } rect.error { fill: var(--error); }
</style>
</head>
<body>
<h1>nitroproxy demo</h1>
<p><code>$target</code> through <code>$proxy</code></p>
<p class="quiet">$started, $seconds s in all</p>
<p class="verdict $verdict_class">$verdict: $summary</p>
$latencies
<h2>Time per case</h2>
<div class="wide">$bars</div>
<h2>Cases</h2>
<div class="wide"><table>
<thead><tr><th>case</th><th>result</th><th class="number">status</th><th class="number">ms</th>
<th class="number">bytes</th><th>what was seen</th></tr></thead>
<tbody>
$rows
</tbody></table></div>
</body>
</html>
""")


def as_html(report: Report) -> str:
    """The report as one self-contained HTML document."""
    return _PAGE.substitute(
        summary=_text(report.summary),
        target=_text(report.target),
        proxy=_text(report.proxy),
        started=_text(report.started.strftime("%Y-%m-%d %H:%M:%S UTC")),
        seconds=f"{report.milliseconds / 1000:.1f}",
        verdict_class="passed" if report.succeeded else "failed",
        verdict="Passed" if report.succeeded else "Failed",
        latencies=_latencies(report.concurrent_latencies),
        bars=_bars([result for result in report.results if result.outcome is not Outcome.SKIPPED]),
        rows="\n".join(_row(result) for result in report.results),
    )


def _text(value: str) -> str:
    """*value* as text of the page, in quotes or not; what UTF-8 cannot hold is replaced."""
    return escape(value.encode(errors="replace").decode())


def _row(result: CaseResult) -> str:
    name, outcome = _text(result.name), result.outcome.value
    status = "–" if result.status is None else str(result.status)
    return (
        f'<tr><td><b>{name}</b><br><span class="quiet">{_text(result.title)}</span></td>'
        f'<td class="result {outcome}">{outcome}</td><td class="number">{status}</td>'
        f'<td class="number">{result.milliseconds:.1f}</td><td class="number">{result.size:,}</td>'
        f'<td class="detail">{_text(result.detail)}</td></tr>'
    )


def _bars(results: Sequence[CaseResult]) -> str:
    """A horizontal bar for each case, on a logarithmic scale: cases take from a few to thousands of milliseconds."""
    longest = max((result.milliseconds for result in results), default=1.0)
    decades = max(1, math.ceil(math.log10(max(longest, 1.0))))
    height = _BAR_ROW * len(results) + 34
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Milliseconds per case, logarithmic scale">']
    for decade in range(decades + 1):
        x = _LABELS + _PLOT * decade / decades
        parts.append(f'<line x1="{x:.1f}" y1="8" x2="{x:.1f}" y2="{height - 24}"/>')
        parts.append(f'<text class="quiet" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{10**decade} ms</text>')
    for index, result in enumerate(results):
        y = 10 + _BAR_ROW * index
        length = max(2.0, _PLOT * math.log10(max(result.milliseconds, 1.0)) / decades)
        parts.append(
            f'<text x="{_LABELS - 8}" y="{y + 14}" text-anchor="end">{_text(result.name)}</text>'
            f'<rect class="{result.outcome.value}" x="{_LABELS}" y="{y + 2}" width="{length:.1f}" height="16" rx="3"/>'
            f'<text x="{_LABELS + length + 6:.1f}" y="{y + 14}">{result.milliseconds:.1f}</text>'
        )
    return "".join(parts) + "</svg>"


def _latencies(ascending: Sequence[float]) -> str:
    """The concurrent requests: their percentiles, and a bar for each in ascending order."""
    if not ascending:
        return ""
    tiles = "".join(
        f'<li><span class="quiet">p{mark}</span><b>{percentile(ascending, mark):.1f} ms</b></li>' for mark in _MARKS
    )
    return (
        f"<h2>{len(ascending)} concurrent requests</h2>"
        f'<ul class="tiles">{tiles}</ul><div class="wide">{_sorted_bars(ascending)}</div>'
    )


def _sorted_bars(ascending: Sequence[float]) -> str:
    left, top, right = 20, 24, _WIDTH - _VALUES
    scale = _SORTED_HEIGHT / max(ascending[-1], 0.001)
    step = (right - left) / len(ascending)
    bottom = top + _SORTED_HEIGHT
    label = "Milliseconds of each concurrent request, in ascending order"
    parts = [f'<svg viewBox="0 0 {_WIDTH} {bottom + 30}" role="img" aria-label="{label}">']
    for index, latency in enumerate(ascending):
        bar = max(1.0, latency * scale)
        parts.append(
            f'<rect x="{left + index * step:.1f}" y="{bottom - bar:.1f}" width="{max(1.0, step - 2):.1f}" '
            f'height="{bar:.1f}"/>'
        )
    for mark in _MARKS:
        y = bottom - percentile(ascending, mark) * scale
        parts.append(f'<line class="mark" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
    parts.append(f'<text class="quiet" x="{left}" y="{bottom + 20}">fastest {ascending[0]:.1f} ms</text>')
    parts.append(
        f'<text class="quiet" x="{right}" y="{bottom + 20}" text-anchor="end">slowest {ascending[-1]:.1f} ms</text>'
    )
    return "".join(parts) + "</svg>"
