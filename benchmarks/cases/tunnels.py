"""New tunnels: open one through the relay, send a byte there and back, close it (P4)."""

from __future__ import annotations

from benchmarks import ours, peers
from benchmarks.clients import Door, churn
from benchmarks.figures import CaseResult, Figure, Sample, Target
from benchmarks.origin import start_raw
from benchmarks.pairs import Plan, Run, compare, prepare
from benchmarks.proc import CPUMeter
from benchmarks.processes import Crew, Process

_SUBJECT = "nitroproxy relay"
_BY_NAME = "nitroproxy relay, by name"
_HAPROXY = "haproxy (tcp, splice-auto)"
_CONCURRENCY = 16


def run(plan: Plan) -> CaseResult:
    """Measure."""
    with Crew(plan.directory / "tunnels") as crew:
        raw = start_raw(crew)

        def measuring(door: Door, process: Process) -> Run:
            def once() -> Sample:
                meter = CPUMeter({"relay": process.pid})
                meter.start()
                took = churn(door, plan.seconds, _CONCURRENCY)
                p50, p99 = percentiles(took)
                cpu = meter.stop()["relay"] / len(took) * 1e6
                return {"cpu": cpu, "rate": len(took) / plan.seconds, "p50": p50, "p99": p99}

            return once

        place = ours.place(crew, crew.directory / "ca.pem")

        def subject() -> Run:
            return measuring(ours.relay_door(place, f"127.0.0.1:{raw}"), ours.start_host(crew, place))

        def by_name() -> Run:
            second = ours.place(crew, crew.directory / "ca.pem", "second")
            process = ours.start_host(crew, second, "second-host")
            return measuring(ours.relay_door(second, f"localhost:{raw}"), process)

        runs = {_SUBJECT: prepare(subject), _BY_NAME: prepare(by_name)}
        for peer, start in peers.RELAYS.items():
            runs[peer] = prepare(lambda start=start: measuring(*start(crew, raw)))  # type: ignore[misc]
        rows = compare(_SUBJECT, runs, "cpu", plan.rounds)
    ratio = next((row.ratio for row in rows if row.contender == _HAPROXY), None)
    notes = (
        f"{_CONCURRENCY} under way at once. nitroproxy reads and answers a CONNECT for each, looks at policy and "
        "address; the others connect to one fixed place.",
        "Tunnels a second are bounded by the client and the server, which share the machine: the CPU is what counts.",
    )
    return CaseResult("tunnels", "New tunnels", "cpu", rows, notes, (_target(ratio),))


def _target(ratio: Figure | None) -> Target:
    measured = ratio.median if ratio is not None else None
    return Target("P4", "of haproxy's tunnels a second of CPU", 0.5, measured, "more")


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """The 50th and 99th percentile in milliseconds."""
    ordered = sorted(seconds)
    return ordered[len(ordered) // 2] * 1e3, ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1e3
