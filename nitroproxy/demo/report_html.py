"""The report for a person: one HTML page that holds all it needs, for light and dark screens.

Everything that is not this module's own text is escaped, and the page's own policy forbids it to load or run anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Template
from typing import Final

from nitroproxy.demo.report_charts import MARKS, sorted_latencies, text_of, time_per_case
from nitroproxy.demo.results import CaseResult, Outcome, Report, percentile

_FAILURES: Final = (Outcome.FAILED, Outcome.ERROR)

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
@media (max-width: 600px) { thead { display: none; } tr { display: block; padding: .5rem 0;
  border-bottom: 1px solid var(--line); } tr:last-child { border-bottom: 0; }
  td, td.number { display: block; border: 0; padding: .1rem .75rem; text-align: left; }
  td[data-label]::before { content: attr(data-label) ": "; color: var(--quiet); font-weight: 400; }
  td.detail { min-width: 0; } }
</style>
</head>
<body>
<h1>nitroproxy demo</h1>
<p><code>$target</code> through <code>$proxy</code></p>
<p class="quiet">$started, $seconds s in all</p>
<p class="verdict $verdict_class">$verdict: $summary</p>
<h2>Cases</h2>
<div class="wide"><table>
<thead><tr><th>case</th><th>result</th><th class="number">status</th><th class="number">ms</th>
<th class="number">bytes</th><th>what was seen</th></tr></thead>
<tbody>
$rows
</tbody></table></div>
$latencies
<h2>Time per case</h2>
<div class="wide">$bars</div>
</body>
</html>
""")


def as_html(report: Report) -> str:
    """The report as one self-contained HTML document: the failures first, then the other cases, then the charts."""
    rows = sorted(report.rows, key=lambda result: result.outcome not in _FAILURES)
    return _PAGE.substitute(
        summary=text_of(report.summary),
        target=text_of(report.target),
        proxy=text_of(report.proxy),
        started=text_of(report.started.strftime("%Y-%m-%d %H:%M:%S UTC")),
        seconds=f"{report.milliseconds / 1000:.1f}",
        verdict_class="passed" if report.succeeded else "failed",
        verdict="Passed" if report.succeeded else "Failed",
        latencies=_latencies(report.concurrent_latencies),
        bars=time_per_case([result for result in report.results if result.outcome is not Outcome.SKIPPED]),
        rows="\n".join(_row(result) for result in rows),
    )


def _row(result: CaseResult) -> str:
    name, outcome = text_of(result.name), result.outcome.value
    status = "–" if result.status is None else str(result.status)
    return (
        f'<tr><td><b>{name}</b><br><span class="quiet">{text_of(result.title)}</span></td>'
        f'<td class="result {outcome}">{outcome}</td><td class="number" data-label="status">{status}</td>'
        f'<td class="number" data-label="ms">{result.milliseconds:.1f}</td>'
        f'<td class="number" data-label="bytes">{result.size:,}</td>'
        f'<td class="detail">{text_of(result.detail)}</td></tr>'
    )


def _latencies(ascending: Sequence[float]) -> str:
    """The concurrent requests: their percentiles, and a chart of all; nothing without such requests."""
    if not ascending:
        return ""
    tiles = "".join(
        f'<li><span class="quiet">p{mark}</span><b>{percentile(ascending, mark):.1f} ms</b></li>' for mark in MARKS
    )
    return (
        f"<h2>{len(ascending)} concurrent requests</h2>"
        f'<ul class="tiles">{tiles}</ul><div class="wide">{sorted_latencies(ascending)}</div>'
    )
