"""The gateway hop: a kept-alive GET with an answer of 1 KiB over 32 connections (P1).

The host daemon alone; nginx listens in place of the enclave and answers.
"""

from __future__ import annotations

from benchmarks import ours
from benchmarks.contenders import CADDY, GO, Start, gateways
from benchmarks.figures import CaseResult, Row, Sample, Target
from benchmarks.origin import start_origin
from benchmarks.pairs import Plan, Run, compare, prepare
from benchmarks.processes import Crew
from benchmarks.wrk import Load, drive

_SUBJECT = "nitroproxy"


def run(plan: Plan) -> CaseResult:
    """Measure."""
    with Crew(plan.directory / "gateway") as crew:
        origin = start_origin(crew, crew.directory / "origin.sock")
        load = Load("/1k", 32, plan.seconds)

        def started(start: Start) -> Run:
            entry = start(crew, origin)

            def once() -> Sample:
                return drive(entry, load, crew.directory)

            return once

        runs = {_SUBJECT: prepare(lambda: started(ours.start_gateway))}
        for name, start in gateways(plan).items():
            runs[name] = prepare(lambda start=start: started(start))  # type: ignore[misc]
        rows = compare(_SUBJECT, runs, "cpu", plan.rounds)
    notes = (
        "32 kept-alive connections, GET, 1 KiB answer, from nginx over a UNIX socket, or over loopback TCP for forward "
        "proxies (squid, tinyproxy, proxy.py, mitmproxy).",
        *(("tinyproxy ends each connection after one request.",) if plan.everything else ()),
    )
    return CaseResult("gateway", "Gateway hop", "cpu", rows, notes, targets(rows))


def targets(rows: tuple[Row, ...]) -> tuple[Target, ...]:
    """What P1 asks for."""
    ratios = {row.contender: row.ratio for row in rows}
    bounds = {GO: 1.0, CADDY: 0.8, "nginx": 5.0}
    return tuple(
        Target("P1", f"times {name}'s CPU", bound, 1 / ratio.median if (ratio := ratios.get(name)) else None)
        for name, bound in bounds.items()
    )
