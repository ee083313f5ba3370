"""Latency of small segments (P9): an answer whose head and body come separately, through the gateway; and round trips
of two small writes, through a tunnel over gateway, enclave and relay. At idle, one client at a time, and at half load.

A segment that waits for the acknowledgement of the previous one costs 40 ms and no CPU: only a latency shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from benchmarks import ours
from benchmarks.clients import Dialogue, Door, hold
from benchmarks.contenders import Start, gateways
from benchmarks.figures import CaseResult, Row, Sample, Target, Unmeasured, median_of
from benchmarks.origin import start_origin, start_raw
from benchmarks.pairs import Plan, Run, compare
from benchmarks.processes import Crew
from benchmarks.wrk import Entry

_SUBJECT: Final = "nitroproxy"
_DIRECT: Final = "no proxy"
#: Milliseconds that a hop may add to the median.
_ADDED: Final = 0.3
_CONNECTIONS: Final = 16
#: Fewer than elsewhere: each has thousands of messages.
_ROUNDS: Final = 3
_BODY: Final = 1024
_WRITES: Final = (b"m" * 32, b"m" * 32)
_IDLE: Final = "idle"
_HALF: Final = "half load"

_LOADS: Final = (
    f"Idle: one connection, one message at a time. Half load: {_CONNECTIONS} connections, messages at a steady rate, "
    "half of what nitroproxy reaches over them; a time counts from when its message was due."
)


def run_answers(plan: Plan) -> CaseResult:
    """Measure answers in two segments."""
    with Crew(plan.directory / "segments") as crew:
        unix = crew.directory / "two.sock"
        raw = start_raw(crew, unix)
        origin = replace(start_origin(crew, crew.directory / "unused.sock"), unix=str(unix), plain=raw)
        starts: dict[str, Start] = {_SUBJECT: ours.start_gateway, _DIRECT: lambda crew, origin: Entry(raw, "", {})}
        starts |= gateways(plan)

        def talk(start: Start) -> _Talk:
            entry = start(crew, origin)
            request = f"GET {entry.prefix}/1k HTTP/1.1\r\nHost: localhost:{entry.port}\r\n\r\n".encode("ascii")
            return _Talk(Door(("127.0.0.1", entry.port)), b"", Dialogue((request,), _is_answer), plan.seconds)

        rows = _both_loads({name: lambda start=start: talk(start) for name, start in starts.items()}, plan)  # type: ignore[misc]
    notes = (f"GET, kept alive, 1 KiB answer in two segments: head, body. {_LOADS}",)
    return CaseResult("segments", "An answer in two segments", "p50", rows, notes, _targets(rows, hops=1))


def run_writes(plan: Plan) -> CaseResult:
    """Measure two small writes through a tunnel."""
    with Crew(plan.directory / "segments-tunnel") as crew:
        raw = start_raw(crew)
        place = ours.place(crew, start_origin(crew, crew.directory / "unused.sock").ca)
        ours.start_host(crew, place)
        ours.start_enclave(crew, place)
        doors = {
            _SUBJECT: Door(("127.0.0.1", place.gateway), f"127.0.0.1:{raw}"),
            _DIRECT: Door(("127.0.0.1", raw)),
        }
        echo = Dialogue(_WRITES, _is_echo)
        talks = {name: _Talk(door, b"ECHO\n", echo, plan.seconds) for name, door in doors.items()}
        rows = _both_loads({name: lambda talk=talk: talk for name, talk in talks.items()}, plan)  # type: ignore[misc]
    notes = (f"64 bytes in two writes there and back; gateway, enclave and relay are three hops. {_LOADS}",)
    return CaseResult("segments-tunnel", "Two small writes", "p50", rows, notes, _targets(rows, hops=3))


def _is_answer(data: bytes) -> bool:
    return len(data) > _BODY and data.endswith(b"k" * _BODY)


def _is_echo(data: bytes) -> bool:
    return len(data) >= sum(map(len, _WRITES))


@dataclass(frozen=True, slots=True)
class _Talk:
    """How a contender is talked to.

    :ivar first: what is sent on a connection before the dialogue begins.
    """

    door: Door
    first: bytes
    dialogue: Dialogue
    seconds: float

    def at(self, rate: float | None, connections: int = _CONNECTIONS) -> list[float]:
        """The seconds that each dialogue took, in order of size."""
        with ExitStack() as held:
            opened = [held.enter_context(self.door.enter()) for _ in range(connections)]
            for connection in opened:
                connection.sendall(self.first)
            return sorted(hold(opened, self.dialogue, self.seconds, rate))


def _both_loads(talks: Mapping[str, Callable[[], _Talk]], plan: Plan) -> tuple[Row, ...]:
    """First at idle, then at half of the subject's load."""
    ready: dict[str, _Talk | Unmeasured] = {}
    for name, start in talks.items():
        try:
            ready[name] = start()
        except Unmeasured as error:
            ready[name] = error
    subject = ready[_SUBJECT]
    if isinstance(subject, Unmeasured):
        return (Row(_SUBJECT, unmeasured=str(subject)),)
    half = len(subject.at(None)) / plan.seconds / 2
    loads: dict[str, Callable[[_Talk], list[float]]] = {
        _IDLE: lambda talk: talk.at(None, 1),
        _HALF: lambda talk: talk.at(half),
    }
    rows: tuple[Row, ...] = ()
    for load, measure in loads.items():
        runs: dict[str, Run | Unmeasured] = {}
        for name, talk in ready.items():
            runs[f"{name}, {load}"] = talk if isinstance(talk, Unmeasured) else _run(talk, measure)
        rows += compare(f"{_SUBJECT}, {load}", runs, "p50", min(plan.rounds, _ROUNDS))
    return rows


def _run(talk: _Talk, measure: Callable[[_Talk], list[float]]) -> Run:
    def once() -> Sample:
        took = measure(talk)
        return {"p50": took[len(took) // 2] * 1e3, "p99": took[len(took) * 99 // 100] * 1e3}

    return once


def _targets(rows: tuple[Row, ...], hops: int) -> tuple[Target, ...]:
    """The latency that a hop adds to the median without a proxy."""
    targets = []
    for load in (_IDLE, _HALF):
        through, direct = (median_of(rows, f"{name}, {load}", "p50") for name in (_SUBJECT, _DIRECT))
        added = None if through is None or direct is None else (through - direct) / hops
        targets.append(Target("P9", f"ms added at the median by a hop, {load}", _ADDED, added))
    return tuple(targets)
