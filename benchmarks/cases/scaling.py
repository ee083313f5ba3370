"""The effect of idle connections: the CPU of a request while 10 to 10,000 connections are idle (P8)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from benchmarks import ours, peers
from benchmarks.clients import idle_requests
from benchmarks.figures import CaseResult, Figure, Row, Sample, Target, Unmeasured
from benchmarks.origin import Origin, start_origin
from benchmarks.pairs import Plan, Run, compare, prepare
from benchmarks.processes import Crew
from benchmarks.wrk import Entry, Load, drive

_FEW = 10
_BOUND_AT = 4000


def run(plan: Plan) -> CaseResult:
    """Measure."""
    many = (100, 200) if plan.quick else (1000, _BOUND_AT, 10000)
    rows = _measure(plan, "nitroproxy", _ours, many)
    targeted = rows[min(2, len(rows) - 1)].ratio
    for name, start in (("haproxy", peers.haproxy), ("nginx", peers.nginx)):
        rows += _measure(plan, name, start, many[-1:])
    notes = (
        "One instance for each number of idle connections, driven in pairs with the one that has 10; gateway hop as "
        "above. The ratio is to the same program's 10.",
    )
    return CaseResult("scaling", "Gateway hop beside idle connections", "cpu", rows, notes, (_target(targeted),))


def _target(ratio: Figure | None) -> Target:
    return Target("P8", f"of its CPU at {_FEW}, at {_BOUND_AT:,} connections", 1.1, ratio.median if ratio else None)


def _ours(crew: Crew, origin: Origin) -> Entry:
    place = ours.place(crew, origin.ca)
    return ours.gateway_entry(place, ours.start_host(crew, place), origin.tls)


def _measure(plan: Plan, name: str, start: Callable[[Crew, Origin], Entry], many: tuple[int, ...]) -> tuple[Row, ...]:
    with ExitStack() as held:

        def instance(idle: int) -> Run:
            crew = held.enter_context(Crew(plan.directory / f"scaling-{name}-{idle}"))
            entry = start(crew, start_origin(crew, crew.directory / "nitroproxy" / "enclave" / "5000.sock"))
            request = f"GET {entry.prefix}/1k HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("ascii")
            held.enter_context(idle_requests(("127.0.0.1", entry.port), request, idle))
            load = Load("/1k", 32, plan.seconds)

            def once() -> Sample:
                return drive(entry, load, crew.directory)

            return once

        def label(idle: int) -> str:
            return f"{name}, {idle:,} idle"

        runs: dict[str, Run | Unmeasured] = {}
        for idle in (_FEW, *many):
            runs[label(idle)] = prepare(lambda idle=idle: instance(idle))  # type: ignore[misc]
        return compare(label(_FEW), runs, "cpu", plan.rounds)
