"""The relay moves bytes: a tunnel's bulk throughput each way, and the CPU it takes (P3)."""

from __future__ import annotations

from typing import Literal

from benchmarks import ours, peers
from benchmarks.clients import Door, transfer
from benchmarks.figures import CaseResult, Row, Sample, Target
from benchmarks.origin import start_raw
from benchmarks.pairs import Plan, Run, compare, prepare
from benchmarks.proc import CPUMeter
from benchmarks.processes import Crew, Process

_SUBJECT = "nitroproxy relay"
_HAPROXY = "haproxy (tcp, splice-auto)"
_STREAMS = 2


def run_down(plan: Plan) -> CaseResult:
    """Towards the client."""
    return _run(plan, "DOWN")


def run_up(plan: Plan) -> CaseResult:
    """Towards the destination."""
    return _run(plan, "UP")


def _run(plan: Plan, direction: Literal["DOWN", "UP"]) -> CaseResult:
    name = f"relay-{direction.lower()}"
    with Crew(plan.directory / name) as crew:
        raw = start_raw(crew)
        count = (128 if plan.quick else 1024) << 20

        def measuring(door: Door, process: Process) -> Run:
            def once() -> Sample:
                meter = CPUMeter({"relay": process.pid})
                meter.start()
                seconds = transfer(door, direction, count, _STREAMS)
                return {"cpu_per_gb": meter.stop()["relay"] / count * 1e9, "gb_per_s": count / seconds / 1e9}

            return once

        def subject() -> Run:
            place = ours.place(crew, crew.directory / "ca.pem")
            process = ours.start_host(crew, place)
            return measuring(ours.relay_door(place, f"127.0.0.1:{raw}"), process)

        runs = {_SUBJECT: prepare(subject)}
        for peer, start in peers.RELAYS.items():
            runs[peer] = prepare(lambda start=start: measuring(*start(crew, raw)))  # type: ignore[misc]
        rows = compare(_SUBJECT, runs, "cpu_per_gb", plan.rounds)
    notes = (
        f"{count >> 20} MiB over {_STREAMS} tunnels at once: a UNIX socket on the client's side, TCP on the other. The "
        "client and the server share the machine with the relay.",
    )
    return CaseResult(name, f"Relay, bulk {direction.lower()}", "cpu_per_gb", rows, notes, _targets(rows))


def _targets(rows: tuple[Row, ...]) -> tuple[Target, ...]:
    figures = {row.contender: row.figures for row in rows}
    ratios = {row.contender: row.ratio for row in rows}
    cpu = ratios.get(_HAPROXY)
    speeds = [figures.get(name, {}).get("gb_per_s") for name in (_SUBJECT, _HAPROXY)]
    speed = speeds[0].median / speeds[1].median if speeds[0] and speeds[1] else None
    return (
        Target("P3", "of haproxy's CPU per GB", 1, 1 / cpu.median if cpu else None),
        Target("P3", "of haproxy's throughput", 1, speed, "more"),
    )
