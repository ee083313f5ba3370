"""The whole chain: gateway, enclave, relay, and an upstream behind TLS 1.3; kept alive (P2)."""

from __future__ import annotations

from benchmarks import ours, peers
from benchmarks.figures import CaseResult, Target, median_of
from benchmarks.origin import Origin, start_origin
from benchmarks.pairs import Plan, Run, compare, prepare
from benchmarks.processes import Crew
from benchmarks.wrk import Entry, Load, drive

SUBJECT = "nitroproxy"
STOCK = "Resource + Agent"


def start_ours(crew: Crew, origin: Origin) -> Entry:
    """Both daemons."""
    place = ours.place(crew, origin.ca)
    host, enclave = ours.start_host(crew, place), ours.start_enclave(crew, place)
    return ours.chain_entry(place, host, enclave, origin.tls)


def run(plan: Plan) -> CaseResult:
    """Measure."""
    with Crew(plan.directory / "chain") as crew:
        origin = start_origin(crew, crew.directory / "unused.sock")
        load = Load("/1k", 32, 2 * plan.seconds)

        def subject() -> Run:
            entry = start_ours(crew, origin)
            return lambda: drive(entry, load, crew.directory)

        def stock() -> Run:
            entry = peers.stock_chain(crew, origin, origin.tls)
            return lambda: drive(entry, load, crew.directory)

        runs = {SUBJECT: prepare(subject), STOCK: prepare(stock)}
        rows = compare(SUBJECT, runs, "cpu", plan.rounds + 1)
    ratio = rows[1].ratio
    targets = (
        Target("P2", "µs CPU a request over all processes", 160, median_of(rows, SUBJECT, "cpu")),
        Target("P2", "times cheaper than stock Twisted", 4, ratio.median if ratio else None, "more"),
    )
    notes = (
        "32 kept-alive connections, GET, 1 KiB answer, TLS 1.3 from the enclave to nginx.",
        "Stock: twisted.web Resource and Agent as gateway, the same with TLS as enclave, portforward as relay. "
        "nitroproxy's host process is gateway and relay.",
    )
    return CaseResult("chain", "Whole chain, TLS upstream", "cpu", rows, notes, targets)
