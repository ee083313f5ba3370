"""More than one core for the enclave: its daemon with one process and with several (enclave.processes).

The rate is compared, of requests and of TLS handshakes. Load generator, relay and destination need cores too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from benchmarks import ours
from benchmarks.cases.handshakes import only
from benchmarks.figures import CaseResult, Row, Sample, Unmeasured
from benchmarks.origin import Origin, start_origin
from benchmarks.pairs import Plan, Run, compare, prepare
from benchmarks.processes import Crew, Process
from benchmarks.wrk import Entry, Load, drive

_KEPT, _FULL = "kept alive", "a full handshake each"


def run(plan: Plan) -> CaseResult:
    """Measure."""
    counts = (1, plan.enclave_processes)
    rows: tuple[Row, ...] = ()
    with ExitStack() as held:
        started = {count: _Instance(plan, held, count) for count in counts}
        for kind in (_KEPT, _FULL):
            labels = {count: f"{count} process{'es' * (count > 1)}, {kind}" for count in counts}
            runs: dict[str, Run | Unmeasured] = {
                label: prepare(started[count].run(kind)) for count, label in labels.items()
            }
            rows += compare(labels[1], runs, "rate", plan.rounds)
    notes = (
        "The enclave daemon, entered through its loopback listener; wrk with one thread, 32 connections, GET, 1 KiB "
        "answer over TLS from nginx. The host daemon has as many processes, since its relay carries the tunnels.",
    )
    return CaseResult("enclave-processes", "A request in the enclave on several processes", "rate", rows, notes)


class _Instance:
    """Both daemons with *count* processes each, and a destination."""

    def __init__(self, plan: Plan, held: ExitStack, count: int) -> None:
        crew = self._crew = held.enter_context(Crew(plan.directory / f"enclave-processes-{count}"))
        self._load = Load("/1k", 32, plan.seconds)
        self._origin: Origin = start_origin(crew, crew.directory / "unused.sock")
        place = self._place = ours.place(crew, self._origin.ca)
        self._host: Process = ours.start_host(crew, place, processes=count)
        self._enclave: Process = ours.start_enclave(crew, place, processes=count)

    def run(self, kind: str) -> Callable[[], Run]:
        """What drives it."""
        port = self._origin.tls_full if kind == _FULL else self._origin.tls
        pids = {"enclave": self._enclave.pid, "host": self._host.pid}
        entry = Entry(self._place.loopback, f"/https://localhost:{port}", pids)

        def once() -> Sample:
            return drive(entry, self._load, self._crew.directory)

        return lambda: (lambda: only(self._origin, "full", once)) if kind == _FULL else once
