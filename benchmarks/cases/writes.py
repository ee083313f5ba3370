"""Many small writes: 64 bytes at a time, there and back through tunnels of the relay."""

from __future__ import annotations

from benchmarks import ours, peers
from benchmarks.cases.tunnels import percentiles
from benchmarks.clients import Door, round_trips
from benchmarks.figures import CaseResult, Sample
from benchmarks.origin import start_raw
from benchmarks.pairs import Plan, Run, compare, prepare
from benchmarks.proc import CPUMeter
from benchmarks.processes import Crew, Process

_SUBJECT = "nitroproxy relay"
_CONNECTIONS = 16
_SIZE = 64


def run(plan: Plan) -> CaseResult:
    """Measure."""
    with Crew(plan.directory / "writes") as crew:
        raw = start_raw(crew)

        def measuring(door: Door, process: Process) -> Run:
            def once() -> Sample:
                meter = CPUMeter({"relay": process.pid})
                meter.start()
                took = round_trips(door, plan.seconds, _CONNECTIONS, _SIZE)
                p50, p99 = percentiles(took)
                cpu = meter.stop()["relay"] / len(took) * 1e6
                return {"cpu": cpu, "rate": len(took) / plan.seconds, "p50": p50, "p99": p99}

            return once

        def subject() -> Run:
            place = ours.place(crew, crew.directory / "ca.pem")
            return measuring(ours.relay_door(place, f"127.0.0.1:{raw}"), ours.start_host(crew, place))

        runs = {_SUBJECT: prepare(subject)}
        for peer, start in peers.RELAYS.items():
            runs[peer] = prepare(lambda start=start: measuring(*start(crew, raw)))  # type: ignore[misc]
        rows = compare(_SUBJECT, runs, "cpu", plan.rounds)
    notes = (f"{_CONNECTIONS} tunnels, {_SIZE} bytes there and back on each; the CPU is that of a round trip.",)
    return CaseResult("writes", "Small writes through a tunnel", "cpu", rows, notes)
