"""The relay moves bytes: a tunnel's bulk throughput each way, and the CPU it takes (P3)."""

from __future__ import annotations

from typing import Literal

from benchmarks.clients import Door, transfer
from benchmarks.contenders import HAPROXY
from benchmarks.figures import CaseResult, Row, Sample, Target
from benchmarks.origin import start_raw
from benchmarks.pairs import Plan, compare
from benchmarks.proc import CPUMeter
from benchmarks.processes import Crew, Process
from benchmarks.relays import SUBJECT, relay_runs

_STREAMS = 2


def run_down(plan: Plan) -> CaseResult:
    """Towards the client."""
    return _run(plan, "DOWN")


def run_up(plan: Plan) -> CaseResult:
    """Towards the destination."""
    return _run(plan, "UP")


def _run(plan: Plan, direction: Literal["DOWN", "UP"]) -> CaseResult:
    name = f"relay-{direction.lower()}"
    count = (128 if plan.quick else 512) << 20

    def measure(door: Door, process: Process) -> Sample:
        meter = CPUMeter({"relay": process.pid})
        meter.start()
        seconds = transfer(door, direction, count, _STREAMS)
        return {"cpu_per_gb": meter.stop()["relay"] / count * 1e9, "gb_per_s": count / seconds / 1e9}

    with Crew(plan.directory / name) as crew:
        rows = compare(SUBJECT, relay_runs(plan, crew, start_raw(crew), measure), "cpu_per_gb", plan.rounds)
    notes = (
        f"{count >> 20} MiB over {_STREAMS} tunnels at once: a UNIX socket on the client's side, TCP on the other. The "
        "client and the server share the machine with the relay.",
    )
    return CaseResult(name, f"Relay, bulk {direction.lower()}", "cpu_per_gb", rows, notes, _targets(rows))


def _targets(rows: tuple[Row, ...]) -> tuple[Target, ...]:
    cpu = next((row.ratio for row in rows if row.contender == HAPROXY), None)
    return (Target("P3", "times haproxy's CPU", 1.3, 1 / cpu.median if cpu else None),)
