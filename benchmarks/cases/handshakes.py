"""TLS handshakes, full and resumed: of `nitroproxy.tls.client` alone, and in requests on a new connection (P6)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

from benchmarks import ours
from benchmarks.figures import CaseResult, Sample, Target, Unmeasured
from benchmarks.groups import CLASSIC, classic
from benchmarks.origin import Origin, start_origin
from benchmarks.pairs import Plan, Run, compare, prepare
from benchmarks.processes import ROOT, Crew
from benchmarks.wrk import Entry, Load, drive

Kind = Literal["full", "resumed"]
_SUBJECT = "nitroproxy.tls.client"
_OPENSSL = {"full": "openssl s_time -new", "resumed": "openssl s_time -reuse"}
_STOCK = "optionsForClientTLS"
_BARE = "pyOpenSSL, a blocking socket"
#: The share of handshakes that must be of the kind that a run measures.
_PURE = 0.95


def run_full(plan: Plan) -> CaseResult:
    """A client alone, without a session to resume."""
    return _alone(plan, "full")


def run_resumed(plan: Plan) -> CaseResult:
    """A client alone; each connection resumes the session of the previous one."""
    return _alone(plan, "resumed")


def _alone(plan: Plan, kind: Kind) -> CaseResult:
    with Crew(plan.directory / f"handshakes-{kind}") as crew:
        origin = start_origin(crew, crew.directory / "unused.sock")
        port = str(origin.tls_full if kind == "full" else origin.tls_resumed)

        def client(command: list[str], environment: Mapping[str, str] | None = None) -> Callable[[], Run]:
            return lambda: lambda: only(origin, kind, lambda: _client(command, environment or {}))

        def python(who: str) -> list[str]:
            return [sys.executable, "-m", "benchmarks.handshaker", who, port, str(origin.ca), str(plan.seconds)]

        openssl = ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-www", "/1k", "-time", str(plan.seconds)]
        openssl += ["-new" if kind == "full" else "-reuse", "-CAfile", str(origin.ca), "-verify", "4"]
        runs = {_SUBJECT: prepare(client(python("nitroproxy"))), _OPENSSL[kind]: prepare(client(openssl))}
        runs[_BARE] = prepare(client(python("bare")))
        runs[f"{_SUBJECT}, {CLASSIC}"] = prepare(client(python("nitroproxy"), classic(crew)))
        runs[f"{_BARE}, {CLASSIC}"] = prepare(client(python("bare"), classic(crew)))
        if kind == "full":
            runs[_STOCK] = prepare(client(python("stock")))
        rows = compare(_SUBJECT, runs, "cpu", plan.rounds)
    notes = (
        "CPU of the client for TCP, a verified TLS 1.3 handshake, one small GET and the end; ECDSA P-256 certificate. "
        "s_time is Debian's OpenSSL, which has no X25519MLKEM768; the others use the one that comes with the "
        f"cryptography package, which offers it beside X25519 unless the row says {CLASSIC}. The server has X25519.",
    )
    ratio = rows[1].ratio
    bound = Target("P6", "times openssl s_time -new", 1.35, 1 / ratio.median if ratio else None)
    targets = (bound,) if kind == "full" else ()
    return CaseResult(f"handshakes-{kind}", f"TLS handshake, {kind}", "cpu", rows, notes, targets)


def _client(command: list[str], environment: Mapping[str, str]) -> Sample:
    """Run a client that makes handshakes for a while; returns the CPU time of each."""
    try:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
    except FileNotFoundError as error:
        raise Unmeasured(f"{command[0]} is not installed") from error
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    words = output.split()
    if process.returncode or not words:
        raise Unmeasured(f"{command[0]} ended with {process.returncode}: {output.strip()[-200:]}")
    if command[0] == "openssl":
        return {"cpu": (usage.ru_utime + usage.ru_stime) / _connections(output) * 1e6}
    return {"cpu": float(words[1]) / int(words[0]) * 1e6}


def _connections(output: str) -> int:
    """The number of connections that s_time reports: ``N connections in M real seconds, ...``."""
    for line in output.splitlines():
        if " real seconds" in line:
            return int(line.split()[0])
    raise Unmeasured(f"openssl s_time printed no count: {output.strip()[-200:]}")


def only(origin: Origin, kind: Kind, run: Callable[[], Sample]) -> Sample:
    """The result of *run*, provided that the server saw handshakes of *kind*."""
    before = origin.handshakes.stat().st_size
    sample = run()
    with origin.handshakes.open() as log:
        log.seek(before)
        seen = Counter(log.read().split())
    if seen[kind] < _PURE * seen.total():
        raise Unmeasured(f"only {seen[kind]} of {seen.total()} handshakes were {kind}")
    return sample


def run_enclave(plan: Plan) -> CaseResult:
    """The enclave daemon: requests on kept-alive connections, and requests that each need a new connection."""
    with Crew(plan.directory / "connections") as crew:
        origin = start_origin(crew, crew.directory / "unused.sock")
        place = ours.place(crew, origin.ca)
        ours.start_host(crew, place)
        enclave = ours.start_enclave(crew, place)
        load = Load("/1k", 8, plan.seconds)

        def requests(port: int, kind: Kind | None) -> Callable[[], Run]:
            entry = Entry(place.loopback, f"/https://localhost:{port}", {"enclave": enclave.pid})

            def once() -> Sample:
                return drive(entry, load, crew.directory)

            return lambda: once if kind is None else lambda: only(origin, kind, once)

        runs = {
            "kept alive": prepare(requests(origin.tls, None)),
            "new connection, resumed": prepare(requests(origin.tls_resumed, "resumed")),
            "new connection, full": prepare(requests(origin.tls_full, "full")),
        }
        rows = compare("kept alive", runs, "cpu", plan.rounds)
    notes = (
        "The enclave daemon alone, entered through its loopback listener, 8 connections. A new connection is a CONNECT "
        "to the relay and a handshake; the relay's CPU is not in it.",
    )
    return CaseResult("connections", "A request in the enclave", "cpu", rows, notes)
