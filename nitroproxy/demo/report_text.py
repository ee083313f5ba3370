"""The report on the console: one line a case while it runs, and a table at the end.

It writes to the text stream that it is given, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TextIO

from nitroproxy.demo.cases import Case
from nitroproxy.demo.results import CaseResult, Report, percentile

_COLUMNS: Final = ("case", "result", "status", "ms", "bytes", "detail")
_CLEAR_LINE: Final = "\r\x1b[K"


class Console:
    """Writes a run's progress and its report.

    :param interactive: the stream is a terminal: the running case is shown in a line that is overwritten.
    """

    def __init__(self, stream: TextIO, interactive: bool) -> None:
        self._stream = stream
        self._interactive = interactive

    def started(self, number: int, total: int, case: Case) -> None:
        """A case begins: a terminal shows which."""
        if self._interactive:
            self._write(f"{_CLEAR_LINE}[{number}/{total}] {case.name} …")

    def finished(self, number: int, total: int, result: CaseResult) -> None:
        """A case has ended: its line."""
        line = f"[{number}/{total}] {result.name}: {result.outcome.value} in {result.milliseconds:.0f} ms"
        self._write(f"{_CLEAR_LINE if self._interactive else ''}{line}\n")

    def report(self, report: Report) -> None:
        """The table of all cases, and the counts."""
        lines = ["", f"{report.target} through {report.proxy}", "", *table(report.rows), ""]
        latencies = report.concurrent_latencies
        if latencies:
            marks = ", ".join(f"p{percent} {percentile(latencies, percent):.0f} ms" for percent in (50, 90, 99))
            lines.append(f"{len(latencies)} concurrent requests: {marks}")
        lines.append(f"{report.summary} in {report.milliseconds / 1000:.1f} s")
        self._write("\n".join(lines) + "\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def table(results: Sequence[CaseResult]) -> list[str]:
    """The lines of a table of *results*, its columns aligned; control characters of a detail are escaped."""
    rows = [_COLUMNS, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS) - 1)]
    lines = []
    for row in rows:
        name, outcome, status, milliseconds, size = (
            cell.rjust(width) if column >= 2 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        )
        lines.append(f"{name}  {outcome}  {status}  {milliseconds}  {size}  {row[-1]}")
    lines.insert(1, "  ".join("-" * width for width in (*widths, len(_COLUMNS[-1]))))
    return lines


def _row(result: CaseResult) -> tuple[str, ...]:
    return (
        result.name,
        result.outcome.value,
        "-" if result.status is None else str(result.status),
        f"{result.milliseconds:.1f}",
        str(result.size),
        "".join(character if character.isprintable() else repr(character)[1:-1] for character in result.detail),
    )
