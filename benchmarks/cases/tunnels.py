"""New tunnels: open one through the relay, echo a byte, close it (P4)."""

from __future__ import annotations

from benchmarks.clients import Door, churn
from benchmarks.figures import CaseResult, Sample, Target
from benchmarks.origin import start_raw
from benchmarks.pairs import Plan, Run, compare, prepare
from benchmarks.processes import Crew, Process
from benchmarks.relays import HAPROXY, SUBJECT, our_relay, relay_runs, timed

_BY_NAME = "nitroproxy relay, by name"
_CONCURRENCY = 16


def run(plan: Plan) -> CaseResult:
    """Measure."""

    def measure(door: Door, process: Process) -> Sample:
        return timed(process, plan.seconds, lambda: churn(door, plan.seconds, _CONCURRENCY))

    with Crew(plan.directory / "tunnels") as crew:
        raw = start_raw(crew)

        def by_name() -> Run:
            door, process = our_relay(crew, f"localhost:{raw}", "by-name")
            return lambda: measure(door, process)

        runs = relay_runs(crew, raw, measure)
        runs[_BY_NAME] = prepare(by_name)
        rows = compare(SUBJECT, runs, "cpu", plan.rounds)
    ratio = next((row.ratio for row in rows if row.contender == HAPROXY), None)
    notes = (
        f"{_CONCURRENCY} under way at once. nitroproxy reads and answers a CONNECT for each, looks at policy and "
        "address; the others connect to one fixed place.",
        "Tunnels a second are bounded by the client and the server, which share the machine: the CPU is what counts.",
    )
    measured = ratio.median if ratio is not None else None
    target = Target("P4", "of haproxy's tunnels a second of CPU", 0.5, measured, "more")
    return CaseResult("tunnels", "New tunnels", "cpu", rows, notes, (target,))
