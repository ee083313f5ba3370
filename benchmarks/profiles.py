"""Profiles nitroproxy's daemons: py-spy samples a daemon under load from outside."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from benchmarks import ours
from benchmarks.clients import churn, round_trips, transfer
from benchmarks.figures import Unmeasured
from benchmarks.install import ENVIRONMENT
from benchmarks.origin import start_origin, start_raw
from benchmarks.pairs import Plan
from benchmarks.proc import CPUMeter, own_times
from benchmarks.processes import Crew
from benchmarks.samples import costs, report
from benchmarks.wrk import Entry, Load, hit

_RATE: Final = 250
_MOST: Final = 25


@dataclass(frozen=True, slots=True)
class Work:
    """A daemon, and work that it can be made to do.

    :ivar unit: the unit of work that is counted.
    :ivar do: does the work for about so many seconds; returns how often it was done.
    """

    pid: int
    unit: str
    do: Callable[[int], float]


def profile(name: str, plan: Plan) -> str:
    """The profile of one case, as text.

    :raises Unmeasured: when something needed is not installed, or fails.
    """
    seconds = 2 if plan.quick else 8
    with Crew(plan.directory / f"profile-{name}") as crew:
        work = PROFILES[name](crew)
        work.do(1)
        meter = CPUMeter({"": work.pid})
        meter.start()
        count = work.do(seconds // 2)
        each = meter.stop()[""] / count * 1e6
        output = crew.directory / "stacks"
        sampler = [str(ENVIRONMENT / "bin/py-spy"), "record", "--pid", str(work.pid), "--native", "--function"]
        sampler += ["--duration", str(seconds), "--rate", str(_RATE), "--format", "raw", "--output", str(output)]
        try:
            sampling = subprocess.Popen(sampler, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        except FileNotFoundError as error:
            raise Unmeasured("py-spy is not installed") from error
        (cpu, system), begun = own_times(work.pid), time.monotonic()
        work.do(seconds + 1)
        (cpu_after, system_after), passed = own_times(work.pid), time.monotonic() - begun
        cpu = cpu_after - cpu
        _, errors = sampling.communicate()
        if sampling.returncode or not output.exists():
            raise Unmeasured(f"py-spy failed: {errors.strip()[-200:]}")
        found = costs(output.read_text().splitlines(), min(1.0, cpu / passed), (system_after - system) / cpu)
    return f"{name}: {each:,.1f} µs CPU a {work.unit}, by samples of its stack\n\n{report(found, each, _MOST)}\n"


def _gateway(crew: Crew) -> Work:
    place = ours.place(crew, crew.directory / "ca.pem")
    origin = start_origin(crew, place.enclave_socket)
    host = ours.start_host(crew, place)
    entry = ours.gateway_entry(place, host, origin.tls)
    return Work(host.pid, "request", lambda seconds: hit(entry, Load("/1k", 32, seconds), crew.directory).requests)


def _chain(crew: Crew, part: Literal["host", "enclave"], load: Load) -> Work:
    place = ours.place(crew, crew.directory / "ca.pem")
    origin = start_origin(crew, crew.directory / "unused.sock")
    daemons = {"host": ours.start_host(crew, place), "enclave": ours.start_enclave(crew, place)}
    entry = ours.chain_entry(place, daemons["host"], daemons["enclave"], origin.tls)

    def do(seconds: int) -> float:
        return hit(entry, Load(load.path, load.connections, seconds, load.upload), crew.directory).requests

    return Work(daemons[part].pid, "request", do)


def _connections(crew: Crew, kind: Literal["full", "resumed"]) -> Work:
    place = ours.place(crew, crew.directory / "ca.pem")
    origin = start_origin(crew, crew.directory / "unused.sock")
    ours.start_host(crew, place)
    enclave = ours.start_enclave(crew, place)
    port = origin.tls_full if kind == "full" else origin.tls_resumed
    entry = Entry(place.loopback, f"/https://localhost:{port}", {"enclave": enclave.pid})
    return Work(enclave.pid, "request", lambda seconds: hit(entry, Load("/1k", 8, seconds), crew.directory).requests)


def _relay(crew: Crew, direction: Literal["DOWN", "UP"]) -> Work:
    door, process = ours.start_relay(crew, f"127.0.0.1:{start_raw(crew)}")

    def do(seconds: int) -> float:
        done = 0.0
        while seconds > 0:
            seconds -= max(1, round(transfer(door, direction, 1 << 29, 2)))
            done += 1 << 9
        return done

    return Work(process.pid, "MiB", do)


def _tunnels(crew: Crew) -> Work:
    door, process = ours.start_relay(crew, f"127.0.0.1:{start_raw(crew)}")
    return Work(process.pid, "tunnel", lambda seconds: len(churn(door, seconds, 16)))


def _writes(crew: Crew) -> Work:
    door, process = ours.start_relay(crew, f"127.0.0.1:{start_raw(crew)}")
    return Work(process.pid, "round trip", lambda seconds: len(round_trips(door, seconds, 16, 64)))


_SMALL: Final = Load("/1k", 32, 1)
_DOWN: Final = Load("/1m", 8, 1)
_UP: Final = Load("/upload", 8, 1, upload=1 << 20)

#: The cases that can be profiled, one daemon each.
PROFILES: Final[dict[str, Callable[[Crew], Work]]] = {
    "gateway": _gateway,
    "chain-host": lambda crew: _chain(crew, "host", _SMALL),
    "chain-enclave": lambda crew: _chain(crew, "enclave", _SMALL),
    "connections-full": lambda crew: _connections(crew, "full"),
    "connections-resumed": lambda crew: _connections(crew, "resumed"),
    "relay-down": lambda crew: _relay(crew, "DOWN"),
    "relay-up": lambda crew: _relay(crew, "UP"),
    "tunnels": _tunnels,
    "writes": _writes,
    "bodies-down-host": lambda crew: _chain(crew, "host", _DOWN),
    "bodies-down-enclave": lambda crew: _chain(crew, "enclave", _DOWN),
    "bodies-up-host": lambda crew: _chain(crew, "host", _UP),
    "bodies-up-enclave": lambda crew: _chain(crew, "enclave", _UP),
}
