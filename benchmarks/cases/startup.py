"""The time from the start of a process to its first answer, and its memory then (P7)."""

from __future__ import annotations

import time

from benchmarks import ours
from benchmarks.contenders import Start, gateways
from benchmarks.figures import CaseResult, Row, Sample, Target, Unmeasured, figures_of, median_of
from benchmarks.origin import Origin, start_origin
from benchmarks.pairs import Plan
from benchmarks.proc import LEAST_CPU, cpu_seconds, rss_bytes
from benchmarks.processes import Crew, open_socket
from benchmarks.wrk import Entry

_HOST = "nitroproxy host"
_ENCLAVE = "nitroproxy enclave"


def run(plan: Plan) -> CaseResult:
    """Measure. The contenders are started in turn."""
    starts: dict[str, Start] = {_HOST: _host, _ENCLAVE: _enclave, **gateways(plan)}
    samples: dict[str, list[Sample]] = {}
    reasons: dict[str, str] = {}
    with Crew(plan.directory / "startup") as shared:
        origin = start_origin(shared, shared.directory / "unused.sock")
        for turn in range(plan.rounds):
            for number, (name, start) in enumerate(starts.items()):
                try:
                    with Crew(plan.directory / f"startup-{turn}-{number}") as crew:
                        samples.setdefault(name, []).append(_start(crew, start, origin))
                except Unmeasured as error:
                    reasons[name] = str(error)
    rows = []
    for name in starts:
        if name in reasons:
            rows.append(Row(name, unmeasured=reasons[name]))
        else:
            rows.append(Row(name, figures_of(samples[name])))
    targets = []
    for name in (_HOST, _ENCLAVE):
        targets.append(Target("P7", f"s to the first answer, {name}", 0.5, median_of(rows, name, "start")))
        targets.append(Target("P7", f"MiB resident when idle, {name}", 60, median_of(rows, name, "rss")))
    notes = ("Started with its files in the page cache; the first answer is any byte to a GET.",)
    return CaseResult("startup", "Start", "start", tuple(rows), notes, tuple(targets))


def _start(crew: Crew, start: Start, origin: Origin) -> Sample:
    begun = time.perf_counter()
    entry = start(crew, origin)
    try:
        with open_socket(("127.0.0.1", entry.port)) as connection:
            connection.sendall(f"GET {entry.prefix}/1k HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("ascii"))
            if not connection.recv(1):
                raise Unmeasured("it closed the connection instead of answering")
    except OSError as error:
        raise Unmeasured(f"it does not answer: {error}") from error
    seconds = time.perf_counter() - begun
    sample = {"start": seconds, "rss": sum(map(rss_bytes, entry.pids.values())) / 1048576}
    cpu = sum(cpu_seconds(entry.pids).values())
    return sample | {"start_cpu": cpu} if cpu >= LEAST_CPU else sample


def _host(crew: Crew, origin: Origin) -> Entry:
    place = ours.place(crew, origin.ca)
    process = ours.start_host(crew, place)
    return Entry(place.gateway, "", {"host": process.pid})


def _enclave(crew: Crew, origin: Origin) -> Entry:
    place = ours.place(crew, origin.ca)
    process = ours.start_enclave(crew, place)
    return Entry(place.loopback, "", {"enclave": process.pid})
