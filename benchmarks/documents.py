"""Writes the figures of a run into the documents, between ``<!-- bench NAME -->`` and ``<!-- /bench -->``.

So every figure that is published is of one run, and the same everywhere. ``python -m benchmarks --publish`` measures
and writes; ``python -m benchmarks.documents`` writes those of the run that was published last. Prose names none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.figures import QUANTITIES, CaseResult, Row
from benchmarks.processes import ROOT
from benchmarks.results import Results, from_json
from benchmarks.table import facts, number, shown, target_line

#: Where the run that was published last is.
PUBLISHED: Final = Path("benchmarks/results")
DOCUMENTS: Final = (Path("README.md"), Path("README.zh-CN.md"), Path("docs/performance.md"))
_BLOCK: Final = re.compile(r"(<!-- bench ([a-z-]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)
#: The lines of the READMEs: a case, what is measured in it, in both languages, and the unit.
_LINES: Final = (
    ("gateway", "a request through the gateway hop", "经网关节点的一个请求", "µs"),
    ("chain", "a request through the whole chain, TLS 1.3", "经整条链路的一个请求，TLS 1.3", "µs"),
    ("relay-down", "a gigabyte down through the relay", "经中继下载 1 GB", "s"),
)
#: The peers that the READMEs name, and how.
_NAMED: Final = {
    "nginx": "nginx",
    "Go ReverseProxy": "Go ReverseProxy",
    "Go ReverseProxy twice, goproxy": "Go ReverseProxy",
    "Caddy": "Caddy",
    "goproxy": "goproxy",
    "haproxy (tcp, splice-auto)": "haproxy",
    "Resource + Agent": "Twisted",
    "portforward": "Twisted",
}


def refresh(text: str, results: Results) -> str:
    """*text* with the figures of *results* in its blocks.

    :raises KeyError: for a block that there is not.
    """
    return _BLOCK.sub(lambda block: f"{block[1]}\n{_BLOCKS[block[2]](results)}\n\n{block[3]}", text)


def publish(results: Results, root: Path = ROOT) -> None:
    """Write the figures of *results* into the documents below *root*."""
    for document in DOCUMENTS:
        path = root / document
        path.write_text(refresh(path.read_text(), results))


def _run(results: Results) -> str:
    """What ran, where and when."""
    return (
        f"Run of {results.when[:10]}, commit {results.commit}, on {facts(results.machine)}; {facts(results.versions)}. "
        f"{results.others:.0%} of the CPU time went to other programs, {results.stolen:.1%} to other machines."
    )


def _summary(results: Results, head: str, text: int) -> str:
    """The READMEs' lines.

    :param text: the column of `_LINES` with the language.
    """
    lines = [head, "| --- | ---: | --- |"]
    cases = {case.name: case for case in results.cases}
    for line in _LINES:
        case = cases.get(line[0])
        if case is not None and case.rows[0].figures:
            digits = QUANTITIES[case.key].digits
            ours, *others = [(row.contender, row.figures[case.key].median) for row in case.rows if row.figures]
            peers = [f"{_NAMED[name]} {number(value, digits)}" for name, value in others if name in _NAMED]
            lines.append(f"| {line[text]} | {number(ours[1], digits)} {line[3]} | {', '.join(peers)} |")
    return "\n".join(lines)


def _figures(results: Results) -> str:
    """Each case's rows: the figure that counts, and its ratio to the subject's."""
    lines = ["| case | | | times the subject's |", "| --- | --- | ---: | ---: |"]
    for case in results.cases:
        title = case.title
        for row in case.rows:
            if row.unmeasured is None:
                lines.append(f"| {title} | {row.contender} | {_figure(case, row)} | {_ratio(row)} |")
                title = ""
    return "\n".join(lines)


def _figure(case: CaseResult, row: Row) -> str:
    quantity = QUANTITIES[case.key]
    return f"{shown(row.figures[case.key], quantity.digits)} {quantity.unit}" if case.key in row.figures else ""


def _ratio(row: Row) -> str:
    return shown(row.ratio, 2) if row.ratio is not None else ""


def _required(results: Results) -> str:
    """What was required, and what was measured."""
    return "\n".join(f"- {target_line(target)}" for case in results.cases for target in case.targets)


_BLOCKS: Final[Mapping[str, Callable[[Results], str]]] = {
    "run": _run,
    "readme": lambda results: _summary(results, "| CPU time | nitroproxy | other programs |", 1),
    "readme-zh": lambda results: _summary(results, "| CPU 时间 | nitroproxy | 其他程序 |", 2),
    "figures": _figures,
    "required": _required,
}


if __name__ == "__main__":
    publish(from_json((ROOT / PUBLISHED / "results.json").read_text()))
