"""The memory of an idle connection: in the gateway, as a tunnel in the relay, as TLS in the enclave (P5, F1)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from benchmarks import ours, peers
from benchmarks.clients import Door, burst, idle_requests, idle_tunnels
from benchmarks.figures import CaseResult, Row, Target, Unmeasured, figures_of, median_of
from benchmarks.groups import CLASSIC, classic
from benchmarks.origin import Origin, start_origin, start_raw
from benchmarks.pairs import Plan
from benchmarks.proc import rss_bytes
from benchmarks.processes import ROOT, Address, Crew, Process, open_socket
from benchmarks.wrk import Entry

_TUNNEL = "nitroproxy relay, tunnels"
_TLS = "nitroproxy enclave, TLS"
_BARE = "pyOpenSSL and nothing else"
#: Connections kept alive for each of the origin's TLS ports.
_FOR_EACH_PORT = 120


def run(plan: Plan) -> CaseResult:
    """Measure."""
    most = 500 if plan.quick else 10000
    tunnels = 200 if plan.quick else 4000
    ports = 4 if plan.quick else 32
    subject = f"nitroproxy gateway, {most:,}"
    measures: dict[str, Callable[[Crew], tuple[float, float]]] = {
        subject: lambda crew: _gateway(crew, _ours, most),
        f"nginx, {most:,}": lambda crew: _gateway(crew, peers.nginx, most),
        f"haproxy, {most:,}": lambda crew: _gateway(crew, peers.haproxy, most),
        f"Resource + Agent, {most:,}": lambda crew: _gateway(crew, peers.stock_gateway, most),
        _TUNNEL: lambda crew: _relay(crew, _our_relay, tunnels),
        "haproxy, tunnels": lambda crew: _relay(crew, peers.haproxy_relay, tunnels),
        "portforward, tunnels": lambda crew: _relay(crew, peers.stock_relay, tunnels),
        _TLS: lambda crew: _our_enclave(crew, ports),
        f"{_TLS}, {CLASSIC}": lambda crew: _our_enclave(crew, ports, classic(crew)),
        "Resource + Agent, TLS": lambda crew: _stock_enclave(crew, ports),
        _BARE: lambda crew: _bare(crew, tunnels, {}),
        f"{_BARE}, {CLASSIC}": lambda crew: _bare(crew, tunnels, classic(crew)),
    }
    if plan.quick:
        measures = {name: measure for name, measure in measures.items() if name.startswith("nitroproxy")}
    rows = []
    for number, (name, measure) in enumerate(measures.items()):
        try:
            with Crew(plan.directory / f"idle-{number}") as crew:
                per_connection, growth = measure(crew)
        except Unmeasured as error:
            rows.append(Row(name, unmeasured=str(error)))
        else:
            sample = {"per_connection": per_connection / 1024, "growth": growth / 1048576}
            rows.append(Row(name, figures_of([sample])))
    targets = (
        Target("F1", f"MiB growth of the host daemon, {most} idle clients", 50, median_of(rows, subject, "growth")),
        Target("P5", "KiB for an idle tunnel in the relay", 6, median_of(rows, _TUNNEL, "per_connection")),
        Target("P5", "KiB for an idle TLS connection in the enclave", 37, median_of(rows, _TLS, "per_connection")),
        Target("P5", f"KiB with {CLASSIC}", 28, median_of(rows, f"{_TLS}, {CLASSIC}", "per_connection")),
    )
    notes = (
        f"Growth of the resident memory, divided by the connections. Gateway: {most} clients, each after one request. "
        f"Tunnels: {tunnels}, each after one byte. TLS: {ports * _FOR_EACH_PORT:,} kept-alive connections to "
        f"{ports} upstreams at most, as many as the server counted; the clients that caused them were there before, "
        f"and {_FOR_EACH_PORT} such connections. {CLASSIC}: without the hybrid X25519MLKEM768, whose private key "
        "OpenSSL keeps as long as the connection.",
        "What the kernel keeps for a socket is not in it. One run.",
    )
    return CaseResult("idle", "Memory of idle connections", "per_connection", tuple(rows), notes, targets)


def _growth(pid: int, holding: AbstractContextManager[None], count: int) -> tuple[float, float]:
    before = rss_bytes(pid)
    with holding:
        growth = float(rss_bytes(pid) - before)
    return growth / count, growth


def _ours(crew: Crew, origin: Origin) -> Entry:
    place = ours.place(crew, origin.ca)
    return ours.gateway_entry(place, ours.start_host(crew, place), origin.tls)


def _gateway(crew: Crew, start: Callable[[Crew, Origin], Entry], count: int) -> tuple[float, float]:
    origin = start_origin(crew, crew.directory / "nitroproxy" / "enclave" / "5000.sock")
    entry = start(crew, origin)
    request = _get(entry.prefix + "/1k")
    address = ("127.0.0.1", entry.port)
    with idle_requests(address, request, 10):
        pass
    return _growth(next(iter(entry.pids.values())), idle_requests(address, request, count), count)


def _get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("ascii")


def _relay(crew: Crew, start: Callable[[Crew, int], tuple[Door, Process]], count: int) -> tuple[float, float]:
    door, process = start(crew, start_raw(crew))
    with idle_tunnels(door, 10):
        pass
    return _growth(process.pid, idle_tunnels(door, count), count)


def _our_relay(crew: Crew, raw: int) -> tuple[Door, Process]:
    return ours.start_relay(crew, f"127.0.0.1:{raw}")


def _our_enclave(crew: Crew, ports: int, environment: Mapping[str, str] | None = None) -> tuple[float, float]:
    origin = start_origin(crew, crew.directory / "unused.sock")
    place = ours.place(crew, origin.ca)
    ours.start_host(crew, place)
    enclave = ours.start_enclave(crew, place, environment=environment)
    return _tls(("127.0.0.1", place.loopback), enclave.pid, origin, ports)


def _stock_enclave(crew: Crew, ports: int) -> tuple[float, float]:
    origin = start_origin(crew, crew.directory / "unused.sock")
    entry = peers.stock_chain(crew, origin, origin.tls_many[0])
    return _tls(peers.stock_enclave_socket(crew), entry.pids["enclave"], origin, ports)


def _bare(crew: Crew, count: int, environment: Mapping[str, str]) -> tuple[float, float]:
    origin = start_origin(crew, crew.directory / "unused.sock")
    command = [sys.executable, "-m", "benchmarks.holder", str(origin.tls), str(origin.ca), str(count)]
    try:
        each = float(subprocess.check_output(command, text=True, cwd=ROOT, env={**os.environ, **environment}))
    except subprocess.CalledProcessError as error:
        raise Unmeasured(f"benchmarks.holder ended with {error.returncode}") from error
    return each, each * count


def _tls(address: Address, pid: int, origin: Origin, ports: int) -> tuple[float, float]:
    """Open many connections at once to each TLS port, and measure the memory that they keep when idle.

    The first port's connections are not counted: they grow the process by what so many handshakes at once need.
    """
    warm, *measured = origin.tls_many[: 1 + ports]
    with ExitStack() as open_connections:
        clients = [open_connections.enter_context(open_socket(address)) for _ in range(_FOR_EACH_PORT)]
        burst(clients, _get(f"/https://localhost:{warm}/1k"))
        before, had = rss_bytes(pid), _established(origin)
        for port in measured:
            burst(clients, _get(f"/https://localhost:{port}/1k"))
        growth, made = rss_bytes(pid) - before, _established(origin) - had
    if made < _FOR_EACH_PORT:
        raise Unmeasured(f"only {made} connections were made")
    return growth / made, float(growth)


def _established(origin: Origin) -> int:
    """The number of open connections of the origin's TLS ports (/proc/net/tcp, state 01)."""
    ports = {f"{port:04X}" for port in origin.tls_many}
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        count += state == "01" and local.rpartition(":")[2] in ports
    return count
