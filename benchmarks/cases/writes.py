"""Many small writes: round trips of 64 bytes through tunnels of the relay."""

from __future__ import annotations

from benchmarks.clients import Door, round_trips
from benchmarks.figures import CaseResult, Sample
from benchmarks.origin import start_raw
from benchmarks.pairs import Plan, compare
from benchmarks.processes import Crew, Process
from benchmarks.relays import SUBJECT, relay_runs, timed

_CONNECTIONS = 16
_SIZE = 64


def run(plan: Plan) -> CaseResult:
    """Measure."""

    def measure(door: Door, process: Process) -> Sample:
        return timed(process, plan.seconds, lambda: round_trips(door, plan.seconds, _CONNECTIONS, _SIZE))

    with Crew(plan.directory / "writes") as crew:
        rows = compare(SUBJECT, relay_runs(plan, crew, start_raw(crew), measure), "cpu", plan.rounds)
    notes = (f"{_CONNECTIONS} tunnels, {_SIZE} bytes there and back on each; the CPU is that of a round trip.",)
    return CaseResult("writes", "Small writes through a tunnel", "cpu", rows, notes)
