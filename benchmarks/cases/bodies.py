"""Large bodies through the whole chain, TLS included: 1 MiB repeatedly, and one of 1 GiB, down and up (F3)."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final

from benchmarks import ours
from benchmarks.clients import read_answer
from benchmarks.contenders import STOCK, chains
from benchmarks.figures import CaseResult, Row, Sample, Target, Unmeasured
from benchmarks.origin import start_origin
from benchmarks.pairs import Plan, Run, compare
from benchmarks.proc import CPUMeter, rss_bytes
from benchmarks.processes import Crew, open_socket
from benchmarks.wrk import Entry, Load, drive

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30
SUBJECT: Final = "nitroproxy"
#: Stock Twisted's CPU divided by that of commit 33a7ff9, by direction.
_BEFORE: Final = {"down": 1.20, "up": 2.02}
Direction = str


def run_1m(plan: Plan) -> CaseResult:
    """1 MiB repeatedly, 8 at a time."""
    loads = {
        "down": Load("/1m", 8, plan.seconds),
        "up": Load("/upload", 8, plan.seconds, upload=_MIB),
    }

    def once(entry: Entry, direction: Direction, crew: Crew) -> Sample:
        sample = drive(entry, loads[direction], crew.directory)
        return {
            "cpu_per_gb": sample["cpu"] / 1e6 / _MIB * 1e9,
            "gb_per_s": sample["rate"] * _MIB / 1e9,
            "p50": sample["p50"],
            "p99": sample["p99"],
        }

    rows = _compare(plan, "bodies-1m", once, plan.rounds)
    notes = (
        "8 connections; CPU of all the chain's processes. The stock Resource takes a whole upload in before it passes "
        "it on.",
        "P3 asks for 0.75 of what commit 33a7ff9 took; stock Twisted took 1.20 times that down, and 2.02 times up.",
    )
    ratios = {row.contender: row.ratio for row in rows}
    targets = []
    for direction, before in _BEFORE.items():
        ratio = ratios.get(f"{STOCK}, {direction}")
        text = f"times cheaper than stock Twisted, {direction}"
        targets.append(Target("P3", text, round(before / 0.75, 2), ratio.median if ratio else None, "more"))
    return CaseResult("bodies-1m", "Bodies of 1 MiB, whole chain", "cpu_per_gb", rows, notes, tuple(targets))


def run_1g(plan: Plan) -> CaseResult:
    """One transfer at a time."""
    size = 64 * _MIB if plan.quick else _GIB

    def once(entry: Entry, direction: Direction, crew: Crew) -> Sample:
        before = {name: rss_bytes(pid) for name, pid in entry.pids.items()}
        meter = CPUMeter(entry.pids)
        meter.start()
        begun = time.perf_counter()
        try:
            with open_socket(("127.0.0.1", entry.port)) as connection:
                _down(connection, entry, plan.quick) if direction == "down" else _up(connection, entry, size)
        except OSError as error:
            raise Unmeasured(f"the transfer broke off: {error}") from error
        seconds = time.perf_counter() - begun
        growth = max(rss_bytes(pid) - before[name] for name, pid in entry.pids.items())
        cpu = sum(meter.stop().values())
        return {"cpu_per_gb": cpu / size * 1e9, "gb_per_s": size / seconds / 1e9, "growth": growth / _MIB}

    rows = _compare(plan, "bodies-1g", once, 1 if plan.quick else 2)
    most = [max(row.figures["growth"].values) for row in rows if SUBJECT in row.contender and row.figures]
    target = Target("F3", "MiB growth of a daemon", 32, max(most) if most else None)
    notes = (f"One transfer of {size // _MIB} MiB at a time; the growth is that of the process that grew most.",)
    return CaseResult("bodies-1g", "A body of 1 GiB, whole chain", "cpu_per_gb", rows, notes, (target,))


def _compare(plan: Plan, name: str, once: Callable[[Entry, Direction, Crew], Sample], rounds: int) -> tuple[Row, ...]:
    """Both chains, first down, then up."""
    with Crew(plan.directory / name) as crew:
        origin = start_origin(crew, crew.directory / "unused.sock")
        entries: dict[str, Entry | Unmeasured] = {}
        for chain, start in {SUBJECT: ours.start_chain, **chains(plan)}.items():
            try:
                entries[chain] = start(crew, origin)
            except Unmeasured as error:
                entries[chain] = error
        rows: list[Row] = []
        for direction in ("down", "up"):
            runs: dict[str, Run | Unmeasured] = {}
            for chain, entry in entries.items():
                runs[f"{chain}, {direction}"] = _bind(once, entry, direction, crew)
            rows += compare(f"{SUBJECT}, {direction}", runs, "cpu_per_gb", rounds)
    return tuple(rows)


def _bind(
    once: Callable[[Entry, Direction, Crew], Sample], entry: Entry | Unmeasured, direction: Direction, crew: Crew
) -> Run | Unmeasured:
    return entry if isinstance(entry, Unmeasured) else lambda: once(entry, direction, crew)


def _down(connection: socket.socket, entry: Entry, quick: bool) -> None:
    for _ in range(64 if quick else 1):
        path = "/1m" if quick else "/1g"
        connection.sendall(f"GET {entry.prefix}{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("ascii"))
        read_answer(connection)


def _up(connection: socket.socket, entry: Entry, size: int) -> None:
    head = f"POST {entry.prefix}/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
    connection.sendall(head.encode("ascii"))
    block = memoryview(bytes(_MIB))
    for _ in range(size // _MIB):
        connection.sendall(block)
    read_answer(connection)
