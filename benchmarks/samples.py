"""Stacks that a sampling profiler took (py-spy, ``--format raw --native``), added up by function. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from benchmarks.table import aligned, number

#: ``name (file:line)``; native frames have a library in the file's place.
_FRAME: Final = re.compile(r"(?P<name>.*) \((?P<place>[^()]*?)(:\d+)?\)")
_SYSTEM_CALLS: Final = frozenset(
    "accept4 clone close connect epoll_ctl epoll_wait fcntl futex getpeername getrandom getsockname getsockopt mmap "
    "munmap open64 read recv recvfrom recvmsg send sendmsg setsockopt shutdown socket write writev".split()
)
_PYTHON_FILE: Final = re.compile(r"\.pyx?$|^<string>$")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one function takes of all samples.

    :ivar own: its own share, from 0 to 1, with what the interpreter does for it.
    :ivar total: with all that it calls.
    :ivar group: ``system calls``, ``OpenSSL``, ``nitroproxy``, ``Twisted`` or ``other``.
    """

    name: str
    group: str
    own: float
    total: float


def _parse(frame: str) -> tuple[str, str]:
    match = _FRAME.fullmatch(frame)
    return (match["name"], match["place"]) if match else (frame, "")


def _owner(frames: list[tuple[str, str]]) -> tuple[str, str]:
    """Whose time a stack's leaf is: a system call, OpenSSL, or the Python function that is being carried out."""
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


def costs(lines: Iterable[str]) -> list[Cost]:
    """The functions in *lines* (``frame;frame;... count``), the dearest first."""
    own: Counter[tuple[str, str]] = Counter()
    total: Counter[str] = Counter()
    count = 0
    for line in lines:
        stack, _, number_of = line.strip().rpartition(" ")
        if not stack:
            continue
        samples = int(number_of)
        frames = [_parse(frame) for frame in stack.split(";")]
        count += samples
        owner = _owner(frames)
        own[owner] += samples
        for name in {owner[0], *(f"{name} ({place})" for name, place in frames)}:
            total[name] += samples
    return [Cost(name, group, samples / count, total[name] / count) for (name, group), samples in own.most_common()]


def report(found: list[Cost], each: float, most: int) -> str:
    """*found* as two tables: by group, and the *most* dearest functions.

    :param each: µs of CPU that each thing that was done took, to be split among the functions.
    """
    groups: Counter[str] = Counter()
    for cost in found:
        groups[cost.group] += cost.own  # type: ignore[assignment]  # a Counter of shares
    cells = [["", "share", "µs"]]
    cells += [[group, f"{share:.0%}", number(share * each, 1)] for group, share in groups.most_common()]
    lines = aligned(cells)
    cells = [["own time", "share", "µs", "µs with callees"]]
    for cost in found[:most]:
        cells.append([cost.name, f"{cost.own:.1%}", number(cost.own * each, 1), number(cost.total * each, 1)])
    return "\n".join([*lines, "", *aligned(cells)])
