"""Shared by the cases about tunnels: nitroproxy's relay and the others, each with a door for our own clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks import ours
from benchmarks.clients import Door
from benchmarks.contenders import relays
from benchmarks.figures import Sample, Unmeasured
from benchmarks.pairs import Plan, Run, prepare
from benchmarks.proc import CPUMeter
from benchmarks.processes import Crew, Process

SUBJECT: Final = "nitroproxy relay"

#: Measures a relay once, entered by a door.
Measure = Callable[[Door, Process], Sample]


def relay_runs(plan: Plan, crew: Crew, raw: int, measure: Measure) -> dict[str, Run | Unmeasured]:
    """Start every relay, each leading to the raw server's port, and warm it up."""

    def starting(start: Callable[[], tuple[Door, Process]]) -> Callable[[], Run]:
        def started() -> Run:
            door, process = start()
            return lambda: measure(door, process)

        return started

    runs = {SUBJECT: prepare(starting(lambda: ours.start_relay(crew, f"127.0.0.1:{raw}")))}
    for name, start in relays(plan).items():
        runs[name] = prepare(starting(lambda start=start: start(crew, raw)))  # type: ignore[misc]
    return runs


def timed(process: Process, seconds: float, client: Callable[[], list[float]]) -> Sample:
    """Run *client* and measure what each operation took: CPU time of *process* in µs, and time.

    :param client: returns the seconds that each operation took.
    :param seconds: how long it runs.
    """
    meter = CPUMeter({"relay": process.pid})
    meter.start()
    took = sorted(client())
    cpu = meter.stop()["relay"] / len(took) * 1e6
    return {
        "cpu": cpu,
        "rate": len(took) / seconds,
        "p50": took[len(took) // 2] * 1e3,
        "p99": took[len(took) * 99 // 100] * 1e3,
    }
