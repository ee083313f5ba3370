"""`python -m benchmarks [NAME...]`: installs the peers, runs the cases, prints tables, writes JSON and SVG."""

from __future__ import annotations

import argparse
import datetime
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks import machine
from benchmarks.cases import CASES
from benchmarks.chart import chart
from benchmarks.documents import PUBLISHED, publish
from benchmarks.figures import CaseResult, Row, Unmeasured
from benchmarks.install import ENVIRONMENT, install
from benchmarks.pairs import Plan
from benchmarks.processes import ROOT, raise_descriptor_limit
from benchmarks.profiles import PROFILES, profile
from benchmarks.results import Results, document, to_json
from benchmarks.table import case_table, facts

#: Processes of the enclave that are compared with one.
_PROCESSES: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; returns 0 unless a case could not be run at all."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    if not options.installed:
        for trouble in install(forward=options.all):
            print(f"benchmarks: {trouble}", file=sys.stderr)
    # So that SIGTERM also ends the programs that were started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    raise_descriptor_limit()
    directory = Path(tempfile.mkdtemp(prefix="npbench."))
    try:
        plan = Plan(
            rounds=options.rounds or (1 if options.quick else 5),
            seconds=1,
            quick=options.quick,
            directory=directory,
            enclave_processes=options.enclave_processes,
            everything=options.all,
            against=options.against,
        )
        if options.profile:
            return _profile(options, plan)
        return _measure(options, plan)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="nitroproxy side by side with other proxies, on loopback."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"cases to run; all without: {', '.join(CASES)}")
    parser.add_argument("--quick", action="store_true", help="one short round, for work on the code")
    parser.add_argument(
        "--enclave-processes",
        type=int,
        choices=range(2, 65),
        default=_PROCESSES,
        metavar="N",
        help="compare so many with one, in the case enclave-processes (default: %(default)s)",
    )
    parser.add_argument("--all", action="store_true", help="also squid, tinyproxy, proxy.py and mitmproxy")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each pair is run [5]")
    parser.add_argument(
        "--against",
        type=lambda text: Path(text).resolve(),
        metavar="DIRECTORY",
        help="compare with nitroproxy of another checkout, which has a .venv, instead of with other programs",
    )
    parser.add_argument("--profile", action="store_true", help=f"say where the CPU goes in: {', '.join(PROFILES)}")
    parser.add_argument("--installed", action="store_true", help="install nothing; measure with what is here")
    parser.add_argument(
        "--publish",
        action="store_true",
        help=f"write to {PUBLISHED}, and the figures into README and docs/performance.md",
    )
    parser.add_argument("--output", type=Path, help="a directory for results.json, .svg and .md, or profiles.txt")
    options = parser.parse_args(arguments)
    known = PROFILES if options.profile else CASES
    for name in options.names:
        if name not in known:
            parser.error(f"there is no case {name!r}; there are {', '.join(known)}")
    if options.against is not None and not (options.against / ".venv/bin/twistd").exists():
        parser.error(f"{options.against} has no .venv/bin/twistd: run ./scripts/dev.sh deps there")
    if options.publish:
        options.output = ROOT / PUBLISHED
    return options


def _measure(options: argparse.Namespace, plan: Plan) -> int:
    about, begun, disturbance = machine.machine(), time.monotonic(), machine.Disturbance()
    print(facts(about), flush=True)
    cases = []
    for name in options.names or CASES:
        print(f"\nrunning {name} ...", file=sys.stderr, flush=True)
        case = _attempt(name, plan)
        cases.append(case)
        print("\n" + case_table(case), flush=True)
    stolen, others = disturbance.shares()
    results = Results(
        when=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=" ".join(["python -m benchmarks", *sys.argv[1:]]),
        commit=machine.commit(ROOT),
        machine=about,
        versions=machine.versions(ENVIRONMENT / "bin"),
        seconds=time.monotonic() - begun,
        stolen=stolen,
        others=others,
        cases=tuple(cases),
    )
    print(f"\n{results.seconds:.0f} s; of the CPU time {others:.0%} went to other programs, {stolen:.1%} was stolen")
    print(f"commit {results.commit}")
    print(facts(results.versions))
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "results.json").write_text(to_json(results))
        (options.output / "results.svg").write_text(chart(results))
        (options.output / "results.md").write_text(document(results))
    if options.publish:
        publish(results)
    return 1 if any(row.unmeasured and len(case.rows) == 1 for case in cases for row in case.rows) else 0


def _attempt(name: str, plan: Plan) -> CaseResult:
    try:
        case = CASES[name](plan)
        # Requirements name other programs.
        return case if plan.against is None else replace(case, targets=())
    except Unmeasured as error:
        return CaseResult(name, name, "cpu", (Row("everything", unmeasured=str(error)),))


def _profile(options: argparse.Namespace, plan: Plan) -> int:
    texts = []
    for name in options.names or PROFILES:
        try:
            texts.append(profile(name, plan))
        except Unmeasured as error:
            texts.append(f"{name}: not measured: {error}\n")
        print(texts[-1], flush=True)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "profiles.txt").write_text("\n".join(texts))
    return 0
