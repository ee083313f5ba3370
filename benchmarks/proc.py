"""CPU time and memory of processes with all their threads and descendants, from /proc (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.figures import Unmeasured

_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
#: The least CPU time, in seconds, of a usable run: each reading may be one tick off.
LEAST_CPU: Final = 10 * _TICK


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that are used.

    :ivar cpu: user and system time in seconds, of all threads and of the children that have been waited for.
    :ivar system: the system time in it, in seconds.
    """

    pid: int
    parent: int
    cpu: float
    system: float


def parse_stat(text: str) -> Stat:
    """Read one /proc/PID/stat; the command in parentheses may itself contain parentheses and spaces."""
    before, _, after = text.rpartition(")")
    fields = after.split()
    user, system, children_user, children_system = (int(field) * _TICK for field in fields[11:15])
    system += children_system
    return Stat(int(before.split(" ", 1)[0]), int(fields[1]), user + children_user + system, system)


def tree(stats: Iterable[Stat], root: int) -> list[Stat]:
    """*root* and all its descendants."""
    children: dict[int, list[Stat]] = {}
    found = []
    for stat in stats:
        children.setdefault(stat.parent, []).append(stat)
        if stat.pid == root:
            found.append(stat)
    for stat in found:
        found += children.get(stat.pid, [])
    return found


def _all_stats(proc: Path) -> list[Stat]:
    stats = []
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                stats.append(parse_stat((entry / "stat").read_text()))
            except OSError:
                continue  # It has just ended.
    return stats


def cpu_seconds(pids: Mapping[str, int], proc: Path = Path("/proc")) -> dict[str, float]:
    """User and system time of each process with its descendants, by name.

    :raises Unmeasured: when one of them is not there any more.
    """
    stats = _all_stats(proc)
    seconds = {}
    for name, pid in pids.items():
        members = tree(stats, pid)
        if not members:
            raise Unmeasured(f"{name} has ended")
        seconds[name] = sum(stat.cpu for stat in members)
    return seconds


def own_times(pid: int, proc: Path = Path("/proc")) -> tuple[float, float]:
    """The CPU time of *pid* alone, and the system time in it, in seconds.

    :raises Unmeasured: when it is not there any more.
    """
    try:
        stat = parse_stat((proc / str(pid) / "stat").read_text())
    except OSError as error:
        raise Unmeasured("the process has ended") from error
    return stat.cpu, stat.system


def rss_bytes(pid: int, proc: Path = Path("/proc")) -> int:
    """Resident memory of *pid* with its descendants. Shared memory is counted in each.

    :raises Unmeasured: when it is not there any more.
    """
    members = tree(_all_stats(proc), pid)
    total = 0
    for stat in members:
        try:
            total += int((proc / str(stat.pid) / "statm").read_text().split()[1]) * _PAGE
        except OSError:
            continue
    if not total:
        raise Unmeasured("the process has ended")
    return total


class CPUMeter:
    """The CPU time that some processes use between `start` and `stop`."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._before: dict[str, float] = {}

    def start(self) -> None:
        """Begin."""
        self._before = cpu_seconds(self._pids)

    def stop(self) -> dict[str, float]:
        """Seconds since `start`, by process.

        :raises Unmeasured: when they are too few for the clock's resolution.
        """
        after = cpu_seconds(self._pids)
        used = {name: after[name] - self._before[name] for name in self._pids}
        if sum(used.values()) < LEAST_CPU:
            raise Unmeasured(
                f"only {sum(used.values()) * 1000:.0f} ms of CPU were used, and the clock ticks every "
                f"{_TICK * 1000:.0f} ms"
            )
        return used
