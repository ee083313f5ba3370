"""Latency of small segments, one client at a time (P9): an answer whose head and body come separately, through the
gateway; and round trips of two small writes, through a tunnel over gateway, enclave and relay.

A segment that waits for the acknowledgement of the previous one costs 40 ms and no CPU: only a latency shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchmarks import ours, peers
from benchmarks.clients import Door, round_trips
from benchmarks.figures import CaseResult, Row, Sample, Target, median_of
from benchmarks.origin import start_origin, start_raw
from benchmarks.pairs import Plan, Run, compare, prepare
from benchmarks.processes import Crew
from benchmarks.wrk import Entry, Load, drive, hit

_SUBJECT = "nitroproxy"
_DIRECT = "no proxy"
_PEERS = ("nginx", "haproxy", "Resource + Agent")
#: Milliseconds that a hop may add to the median.
_ADDED = 0.3


def run_answers(plan: Plan) -> CaseResult:
    """Measure answers in two segments."""
    with Crew(plan.directory / "segments") as crew:
        place = ours.place(crew, crew.directory / "ca.pem")
        place.enclave_socket.parent.mkdir(mode=0o700, parents=True)
        raw = start_raw(crew, place.enclave_socket)
        origin = replace(start_origin(crew, crew.directory / "unused.sock"), unix=str(place.enclave_socket), plain=raw)
        load = Load("/1k", 1, plan.seconds)

        def driving(start: Callable[[], Entry]) -> Callable[[], Run]:
            def started() -> Run:
                entry = start()

                def once() -> Sample:
                    if not entry.pids:
                        outcome = hit(entry, load, crew.directory)
                        return {"p50": outcome.p50, "p99": outcome.p99}
                    sample = drive(entry, load, crew.directory)
                    return {name: sample[name] for name in ("p50", "p99", "cpu")}

                return once

            return started

        runs = {
            _SUBJECT: prepare(driving(lambda: ours.gateway_entry(place, ours.start_host(crew, place), raw))),
            _DIRECT: prepare(driving(lambda: Entry(raw, "", {}))),
        }
        for name in _PEERS:
            runs[name] = prepare(driving(lambda start=peers.GATEWAYS[name]: start(crew, origin)))  # type: ignore[misc]
        rows = compare(_SUBJECT, runs, "p50", plan.rounds)
    notes = ("One kept-alive connection, GET, 1 KiB answer in two segments: head, body.",)
    return CaseResult("segments", "An answer in two segments", "p50", rows, notes, (_target(rows, hops=1),))


def run_writes(plan: Plan) -> CaseResult:
    """Measure two small writes through a tunnel."""
    with Crew(plan.directory / "segments-tunnel") as crew:
        raw = start_raw(crew)
        place = ours.place(crew, start_origin(crew, crew.directory / "unused.sock").ca)
        ours.start_host(crew, place)
        ours.start_enclave(crew, place)

        def timing(door: Door) -> Run:
            def once() -> Sample:
                took = sorted(round_trips(door, plan.seconds, 1, 64, writes=2))
                return {"p50": took[len(took) // 2] * 1e3, "p99": took[len(took) * 99 // 100] * 1e3}

            return once

        gateway = Door(("127.0.0.1", place.gateway), f"127.0.0.1:{raw}")
        runs = {
            _SUBJECT: prepare(lambda: timing(gateway)),
            _DIRECT: prepare(lambda: timing(Door(("127.0.0.1", raw)))),
        }
        rows = compare(_SUBJECT, runs, "p50", plan.rounds)
    notes = ("One tunnel, 64 bytes in two writes there and back; gateway, enclave and relay are three hops.",)
    return CaseResult("segments-tunnel", "Two small writes", "p50", rows, notes, (_target(rows, hops=3),))


def _target(rows: tuple[Row, ...], hops: int) -> Target:
    """The latency that a hop adds to the median without a proxy."""
    through, direct = (median_of(rows, name, "p50") for name in (_SUBJECT, _DIRECT))
    added = None if through is None or direct is None else (through - direct) / hops
    return Target("P9", "ms added at the median by a hop", _ADDED, added)
