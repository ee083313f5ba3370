"""The whole chain: gateway, enclave, relay, and an upstream behind TLS 1.3; kept alive (P2)."""

from __future__ import annotations

from benchmarks import ours
from benchmarks.contenders import GO_CHAIN, STOCK, Start, chains
from benchmarks.figures import CaseResult, Row, Target
from benchmarks.origin import start_origin
from benchmarks.pairs import Plan, Run, compare, prepare
from benchmarks.processes import Crew
from benchmarks.wrk import Load, drive

_SUBJECT = "nitroproxy"


def run(plan: Plan) -> CaseResult:
    """Measure."""
    with Crew(plan.directory / "chain") as crew:
        origin = start_origin(crew, crew.directory / "unused.sock")
        load = Load("/1k", 32, 2 * plan.seconds)

        def started(start: Start) -> Run:
            entry = start(crew, origin)
            return lambda: drive(entry, load, crew.directory)

        runs = {_SUBJECT: prepare(lambda: started(ours.start_chain))}
        for name, start in chains(plan).items():
            runs[name] = prepare(lambda start=start: started(start))  # type: ignore[misc]
        rows = compare(_SUBJECT, runs, "cpu", plan.rounds)
    notes = (
        "32 kept-alive connections, GET, 1 KiB answer, TLS 1.3 from the enclave to nginx. nitroproxy's host process is "
        "gateway and relay.",
        "Stock: twisted.web Resource and Agent as gateway, the same with TLS as enclave, portforward as relay. Go: "
        "httputil.ReverseProxy as gateway, the same with TLS as enclave, goproxy as relay.",
    )
    return CaseResult("chain", "Whole chain, TLS upstream", "cpu", rows, notes, targets(rows))


def targets(rows: tuple[Row, ...]) -> tuple[Target, ...]:
    """What P2 asks for."""
    go, stock = (next((row.ratio for row in rows if row.contender == name), None) for name in (GO_CHAIN, STOCK))
    return (
        Target("P2", "times the Go chain's CPU", 0.9, 1 / go.median if go else None),
        Target("P2", "times cheaper than stock Twisted", 3.8, stock.median if stock else None, "more"),
    )
