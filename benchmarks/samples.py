"""Adds up by function the stacks that a sampling profiler took (py-spy, ``--format raw --native``). Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from benchmarks.table import aligned, number

#: ``name (file:line)``; native frames have a library in the file's place.
_FRAME: Final = re.compile(r"(?P<name>.*) \((?P<place>[^()]*?)(:\d+)?\)")
_SYSTEM_CALLS: Final = frozenset(
    {"accept4", "clone", "close", "connect", "epoll_ctl", "epoll_wait", "fcntl", "futex", "getpeername", "getrandom"}
    | {"getsockname", "getsockopt", "mmap", "munmap", "open64", "read", "recv", "recvfrom", "recvmsg", "send"}
    | {"sendmsg", "setsockopt", "shutdown", "socket", "write", "writev"}
)
#: With native frames the profiler reports a waiting thread as a running one.
_WAIT: Final = ("epoll_wait()", "system calls")
_PYTHON_FILE: Final = re.compile(r"\.pyx?$|^<string>$")


#: The names and places of a stack's frames, the outermost first.
_Frames = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Cost:
    """The share of one function in all samples.

    :ivar own: its own share, from 0 to 1, including what the interpreter does for it.
    :ivar total: its share including everything that it calls.
    :ivar group: ``system calls``, ``OpenSSL``, ``nitroproxy``, ``Twisted`` or ``other``.
    """

    name: str
    group: str
    own: float
    total: float


def _parse(frame: str) -> tuple[str, str]:
    match = _FRAME.fullmatch(frame)
    return (match["name"], match["place"]) if match else (frame, "")


def _owner(frames: _Frames) -> tuple[str, str]:
    """What a stack's leaf is counted as: a system call, OpenSSL, or the Python function that is running."""
    name, place = frames[-1]
    if place.startswith("libc.") and name in _SYSTEM_CALLS:
        return f"{name}()", "system calls"
    for name, place in reversed(frames):
        if "_rust" in place or "libssl" in place or "libcrypto" in place:
            return "OpenSSL and its wrapper", "OpenSSL"
        if _PYTHON_FILE.search(place):
            return f"{name} ({place})", _group(place)
    return name, "other"


def _group(place: str) -> str:
    if place.startswith("nitroproxy/") or place == "<string>":
        return "nitroproxy"
    return "Twisted" if place.startswith(("twisted/", "zope/")) else "other"


def costs(lines: Iterable[str], busy: float = 1.0, system: float | None = None) -> list[Cost]:
    """The functions in *lines* (``frame;frame;... count``), the most expensive first, without waiting.

    A stack is also sampled while another process has the CPU, most often after a system call has woken that process.
    The proportions are therefore corrected by the two shares below, which other sources give more exactly.

    :param busy: the share of the time in which the process ran, from 0 to 1; the rest is waiting in epoll_wait().
    :param system: the share of system time in its CPU time, for all system calls together; None when not known.
    """
    stacks = [_stack(line) for line in lines if line.strip()]
    # Waiting threads of a pool are not counted.
    stacks = [(frames, samples) for frames, samples in stacks if not _pooled(frames)]
    weights = _weights(stacks, busy, system)
    own: dict[tuple[str, str], float] = defaultdict(float)
    total: dict[str, float] = defaultdict(float)
    for frames, samples in stacks:
        owner = _owner(frames)
        share = samples * weights[_kind(owner)]
        own[owner] += share
        for name in {owner[0], *(f"{name} ({place})" for name, place in frames)}:
            total[name] += share
    found = [Cost(name, group, share, total[name]) for (name, group), share in own.items()]
    return sorted(found, key=lambda cost: -cost.own)


def _kind(owner: tuple[str, str]) -> str:
    if owner == _WAIT:
        return "wait"
    return "system" if owner[1] == "system calls" else "user"


def _weights(stacks: list[tuple[_Frames, int]], busy: float, system: float | None) -> dict[str, float]:
    """The weight of a sample of each kind, so that all samples together make 1."""
    samples = dict.fromkeys(("wait", "system", "user"), 0.0)
    for frames, count in stacks:
        samples[_kind(_owner(frames))] += count
    waits = samples["wait"]
    samples["wait"] -= min(waits, (1 - busy) * sum(samples.values()))
    in_system, in_all = samples["wait"] + samples["system"], sum(samples.values())
    share = in_system / in_all if system is None else system
    in_system, in_user = share / max(1, in_system), (1 - share) / max(1, samples["user"])
    return {"wait": in_system * samples["wait"] / max(1, waits), "system": in_system, "user": in_user}


def _stack(line: str) -> tuple[_Frames, int]:
    frames, _, samples = line.strip().rpartition(" ")
    return [_parse(frame) for frame in frames.split(";")], int(samples)


def _pooled(frames: _Frames) -> bool:
    return any(name.endswith("Condition.wait") for name, _ in frames)


def report(found: list[Cost], each: float, most: int) -> str:
    """*found* as two tables: by group, and the *most* most expensive functions.

    :param each: CPU time of one unit of work in µs, which is split among the functions.
    """
    groups: dict[str, float] = defaultdict(float)
    for cost in found:
        groups[cost.group] += cost.own
    cells = [["", "share", "µs"]]
    for group, share in sorted(groups.items(), key=lambda item: -item[1]):
        cells.append([group, f"{share:.0%}", number(share * each, 1)])
    lines = aligned(cells)
    cells = [["own time", "share", "µs", "µs with callees"]]
    for cost in found[:most]:
        cells.append([cost.name, f"{cost.own:.1%}", number(cost.own * each, 1), number(cost.total * each, 1)])
    return "\n".join([*lines, "", *aligned(cells)])
