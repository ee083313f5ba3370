"""The gateway hop: a kept-alive GET with an answer of 1 KiB over 32 connections (P1).

The host daemon alone; nginx listens in place of the enclave and answers.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import ours, peers
from benchmarks.figures import CaseResult, Sample, Target, median_of
from benchmarks.origin import start_origin
from benchmarks.pairs import Plan, Run, compare, prepare
from benchmarks.processes import Crew
from benchmarks.wrk import Entry, Load, drive

_SUBJECT = "nitroproxy"


def run(plan: Plan) -> CaseResult:
    """Measure."""
    with Crew(plan.directory / "gateway") as crew:
        place = ours.place(crew, crew.directory / "ca.pem")
        origin = start_origin(crew, place.enclave_socket)
        load = Load("/1k", 32, plan.seconds)

        def subject() -> Entry:
            return ours.gateway_entry(place, ours.start_host(crew, place), origin.tls)

        def starting(start: Callable[[], Entry]) -> Callable[[], Run]:
            def started() -> Run:
                entry = start()

                def once() -> Sample:
                    return drive(entry, load, crew.directory)

                return once

            return started

        runs = {_SUBJECT: prepare(starting(subject))}
        for name, start in peers.GATEWAYS.items():
            runs[name] = prepare(starting(lambda start=start: start(crew, origin)))  # type: ignore[misc]
        rows = compare(_SUBJECT, runs, "cpu", plan.rounds)
    bound = Target("P1", "µs CPU a request in the gateway", 45, median_of(rows, _SUBJECT, "cpu"))
    notes = (
        "32 kept-alive connections, GET, 1 KiB answer; the answer comes from nginx over a UNIX socket (nginx, haproxy, "
        "Resource + Agent, nitroproxy) or loopback TCP (the forward proxies).",
        "tinyproxy ends each connection after one request.",
    )
    return CaseResult("gateway", "Gateway hop", "cpu", rows, notes, (bound,))
