"""Writes measurements as text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.figures import QUANTITIES, CaseResult, Figure, Row, Target


def number(value: float, digits: int) -> str:
    """*value* with *digits* after the point, or more so that at least two are significant."""
    while digits < 3 and 0 < abs(value) < 10 ** (1 - digits):
        digits += 1
    return f"{value:,.{digits}f}"


def shown(figure: Figure, digits: int) -> str:
    """The median, and the spread in brackets when there is one."""
    middle = number(figure.median, digits)
    if len(figure.values) == 1:
        return middle
    low, high = figure.spread
    return f"{middle} [{number(low, digits)}–{number(high, digits)}]"


def case_table(case: CaseResult, mark: str = "  ") -> str:
    """The case's table, aligned, with its notes and targets below.

    :param mark: the separator of two columns.
    """
    lines = [f"{case.title} ({case.name})", *aligned(_cells(case), mark)]
    lines += [f"  {row.contender}: not measured: {row.unmeasured}" for row in case.rows if row.unmeasured is not None]
    lines += [f"  {target_line(target)}" for target in case.targets]
    lines += [f"  {note}" for note in case.notes]
    return "\n".join(lines)


def _cells(case: CaseResult) -> list[list[str]]:
    quantities = quantities_of(case.rows)
    ratios = any(row.ratio is not None for row in case.rows)
    head = [""] + [f"{QUANTITIES[name].label}, {QUANTITIES[name].unit}" for name in quantities]
    if ratios:
        head.append("times the subject's")
    cells = [head]
    for row in case.rows:
        if row.unmeasured is not None:
            continue
        line = [row.contender]
        for name in quantities:
            line.append(shown(row.figures[name], QUANTITIES[name].digits) if name in row.figures else "")
        if ratios:
            line.append(shown(row.ratio, 2) if row.ratio is not None else "1")
        cells.append(line)
    return cells


def quantities_of(rows: Sequence[Row]) -> list[str]:
    """The quantities that any row has, in the order of `QUANTITIES`."""
    return [name for name in QUANTITIES if any(name in row.figures for row in rows)]


def target_line(target: Target) -> str:
    """A requirement in one line."""
    sign = "at most" if target.better == "less" else "at least"
    wanted = f"{target.requirement}: {sign} {target.bound:g} {target.text}"
    if target.measured is None:
        return f"{wanted}: not measured"
    digits = 2 if target.measured < 10 else 1
    return f"{wanted}: {number(target.measured, digits)}, {'met' if target.met else 'MISSED'}"


def aligned(cells: Sequence[Sequence[str]], mark: str = "  ") -> list[str]:
    """Lines of equal columns, the first flush left and the rest flush right."""
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = []
    for line in cells:
        rest = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append(mark.join([line[0].ljust(widths[0]), *rest]).rstrip())
    return lines


def markdown(case: CaseResult) -> str:
    """The case's table for a document."""
    cells = _cells(case)
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    lines.insert(1, "|" + " --- |" + " ---: |" * (len(cells[0]) - 1))
    return "\n".join(lines)


def facts(pairs: Mapping[str, str]) -> str:
    """Names and values in one line."""
    return ", ".join(f"{name} {value}" for name, value in pairs.items())
