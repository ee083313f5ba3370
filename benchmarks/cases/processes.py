"""More than one core: the gateway hop with one process and with two (host_proxy.processes).

As `gateway`, but the rate is compared. Load generator and upstream need cores too; a note gives the most that both
cores could do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks import ours
from benchmarks.figures import CaseResult, Sample, Unmeasured, median_of
from benchmarks.origin import start_origin
from benchmarks.pairs import Plan, Run, compare, prepare
from benchmarks.proc import CPUMeter
from benchmarks.processes import Crew
from benchmarks.wrk import Load, drive

_ONE = "1 process"


def run(plan: Plan) -> CaseResult:
    """Measure."""
    with ExitStack() as held:
        runs: dict[str, Run | Unmeasured] = {_ONE: prepare(lambda: _instance(plan, held, 1))}
        for count in (2, 3):
            runs[f"{count} processes"] = prepare(_starting(plan, held, count))
        rows = compare(_ONE, runs, "rate", plan.rounds)
    notes = [
        "32 kept-alive connections, GET, 1 KiB answer, from nginx over a UNIX socket; wrk with one thread.",
        "rest: what generator and upstream used for a request. The cores are theirs too.",
    ]
    cores, own, rest = os.cpu_count() or 1, median_of(rows, _ONE, "cpu"), median_of(rows, _ONE, "cpu_rest")
    if own and rest:
        notes.append(
            f"At these costs {cores} cores do at most {cores / (own + rest) * 1e6:,.0f} a second with generator and "
            f"upstream beside the gateway, and one process {1e6 / own:,.0f}: {cores * own / (own + rest):.2f} times."
        )
    return CaseResult("processes", "Gateway hop on several processes", "rate", rows, tuple(notes))


def _starting(plan: Plan, held: ExitStack, count: int) -> Callable[[], Run]:
    return lambda: _instance(plan, held, count)


def _instance(plan: Plan, held: ExitStack, count: int) -> Run:
    crew = held.enter_context(Crew(plan.directory / f"processes-{count}"))
    place = ours.place(crew, crew.directory / "ca.pem")
    origin = start_origin(crew, place.enclave_socket)
    host = ours.start_host(crew, place, processes=count)
    entry = ours.gateway_entry(place, host, origin.tls)
    load = Load("/1k", 32, plan.seconds)

    def once() -> Sample:
        everything = CPUMeter({"everything": os.getpid()})
        everything.start()
        sample = drive(entry, load, crew.directory)
        requests = sample["rate"] * load.seconds
        return {**sample, "cpu_rest": everything.stop()["everything"] / requests * 1e6 - sample["cpu"]}

    return once
