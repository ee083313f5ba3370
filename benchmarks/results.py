"""Converts a whole run to JSON and back, and to a document. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.figures import QUANTITIES, CaseResult, Figure, Row, Target
from benchmarks.table import facts, markdown, target_line

#: The version of the JSON format; raise it when members change their meaning.
FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Results:
    """One run.

    :ivar when: the time of the run, UTC, ISO 8601.
    :ivar command: the command line.
    :ivar seconds: how long it took.
    :ivar stolen: the share of CPU time that the hypervisor gave to other machines during the run.
    :ivar others: the share that unrelated processes used.
    """

    when: str
    command: str
    commit: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    seconds: float
    stolen: float
    others: float
    cases: tuple[CaseResult, ...] = field(default=())


def to_json(results: Results) -> str:
    """The document."""
    document = {
        "format": FORMAT,
        "when": results.when,
        "command": results.command,
        "commit": results.commit,
        "machine": dict(results.machine),
        "versions": dict(results.versions),
        "seconds": round(results.seconds, 1),
        "stolen": round(results.stolen, 4),
        "others": round(results.others, 4),
        "cases": [_case(case) for case in results.cases],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _case(case: CaseResult) -> dict[str, Any]:
    return {
        "name": case.name,
        "title": case.title,
        "key": case.key,
        "rows": [_row(row) for row in case.rows],
        "targets": [
            {
                "requirement": target.requirement,
                "text": target.text,
                "bound": target.bound,
                "better": target.better,
                "measured": target.measured,
                "met": target.met,
            }
            for target in case.targets
        ],
        "notes": list(case.notes),
    }


def _row(row: Row) -> dict[str, Any]:
    if row.unmeasured is not None:
        return {"contender": row.contender, "unmeasured": row.unmeasured}
    figures = {
        name: {"unit": QUANTITIES[name].unit, **_figure(figure)}
        for name, figure in row.figures.items()
        if name in QUANTITIES
    }
    return {
        "contender": row.contender,
        "figures": figures,
        **({"ratio": _figure(row.ratio)} if row.ratio is not None else {}),
    }


def _figure(figure: Figure) -> dict[str, Any]:
    low, high = figure.spread
    return {
        "median": _short(figure.median),
        "low": _short(low),
        "high": _short(high),
        "values": [_short(value) for value in figure.values],
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def document(results: Results) -> str:
    """The run in Markdown: the machine, then a section for each case."""
    lines = [
        "# Results",
        "",
        f"`{results.command}`, {results.when}, commit {results.commit}, {results.seconds:.0f} s. Of the CPU time "
        f"{results.others:.0%} went to other programs on the machine, {results.stolen:.1%} to other machines of its "
        "hypervisor. Median [quartiles]; the last column is the ratio to the first row, pair by pair.",
        "",
        f"Machine: {facts(results.machine)}.",
        "",
        f"Versions: {facts(results.versions)}.",
    ]
    for case in results.cases:
        lines += ["", f"## {case.title} (`{case.name}`)", "", markdown(case), ""]
        lines += [f"- {row.contender}: not measured: {row.unmeasured}" for row in case.rows if row.unmeasured]
        lines += [f"- {target_line(target)}" for target in case.targets]
        lines += [f"- {note}" for note in case.notes]
    return "\n".join(lines) + "\n"


def from_json(text: str) -> Results:
    """Read what `to_json` wrote.

    :raises ValueError: when it is of another format.
    """
    document: Any = json.loads(text)
    if document.get("format") != FORMAT:
        raise ValueError(f"the results are of format {document.get('format')!r}, not {FORMAT}")
    return Results(
        when=document["when"],
        command=document["command"],
        commit=document["commit"],
        machine=document["machine"],
        versions=document["versions"],
        seconds=document["seconds"],
        stolen=document["stolen"],
        others=document["others"],
        cases=tuple(_read_case(case) for case in document["cases"]),
    )


def _read_case(case: Any) -> CaseResult:
    targets = tuple(
        Target(target["requirement"], target["text"], target["bound"], target["measured"], target["better"])
        for target in case["targets"]
    )
    rows = tuple(_read_row(row) for row in case["rows"])
    return CaseResult(case["name"], case["title"], case["key"], rows, tuple(case["notes"]), targets)


def _read_row(row: Any) -> Row:
    if "unmeasured" in row:
        return Row(row["contender"], unmeasured=row["unmeasured"])
    figures = {name: Figure(tuple(figure["values"])) for name, figure in row["figures"].items()}
    ratio = Figure(tuple(row["ratio"]["values"])) if "ratio" in row else None
    return Row(row["contender"], figures, ratio)
