"""New tunnels: open one through the relay, echo a byte, close it (P4)."""

from __future__ import annotations

from benchmarks import ours
from benchmarks.clients import Door, churn
from benchmarks.contenders import GOPROXY
from benchmarks.figures import CaseResult, Sample, Target
from benchmarks.origin import start_raw
from benchmarks.pairs import Plan, Run, compare, prepare
from benchmarks.processes import Crew, Process
from benchmarks.relays import SUBJECT, relay_runs, timed

_BY_NAME = "nitroproxy relay, by name"
_CONCURRENCY = 16


def run(plan: Plan) -> CaseResult:
    """Measure."""

    def measure(door: Door, process: Process) -> Sample:
        return timed(process, plan.seconds, lambda: churn(door, plan.seconds, _CONCURRENCY))

    with Crew(plan.directory / "tunnels") as crew:
        raw = start_raw(crew)

        def by_name() -> Run:
            door, process = ours.start_relay(crew, f"localhost:{raw}", "by-name")
            return lambda: measure(door, process)

        runs = relay_runs(plan, crew, raw, measure)
        if plan.against is None:
            runs[_BY_NAME] = prepare(by_name)
        rows = compare(SUBJECT, runs, "cpu", plan.rounds)
    ratio = next((row.ratio for row in rows if row.contender == GOPROXY), None)
    notes = (
        f"{_CONCURRENCY} under way at once. nitroproxy and goproxy read and answer a CONNECT for each; nitroproxy "
        "checks policy and address. The others connect to one fixed place.",
        "Tunnels a second are bounded by the client and the server, which share the machine: the CPU is what counts.",
    )
    target = Target("P4", "times goproxy's CPU", 1.5, 1 / ratio.median if ratio else None)
    return CaseResult("tunnels", "New tunnels", "cpu", rows, notes, (target,))
