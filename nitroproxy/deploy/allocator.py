"""The allocator's file: what memory and processors are set aside for enclaves at boot.

The allocator reads a subset of YAML: keys at the beginning of a line after ``---``, in its newer versions also a list
of such objects. An unknown key is an error there, so what is edited here is a value, never the form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nitroproxy.deploy.failure import Refused, Status
from nitroproxy.deploy.machine import Machine

FILE: Final = "/etc/nitro_enclaves/allocator.yaml"
SERVICE: Final = "nitro-enclaves-allocator.service"
_LINE: Final = re.compile(r"^(-?\s*)(memory_mib|cpu_count|cpu_pool)(\s*:\s*)\"?([0-9,-]+)\"?(.*)$")


@dataclass(frozen=True)
class Pool:
    """What is set aside.

    :ivar named: the processors are named one by one (``cpu_pool``).
    :ivar parts: objects in the file; only one of them can be edited here.
    """

    memory_mib: int
    cpus: int
    named: bool = False
    parts: int = 1


def read_pool(machine: Machine) -> Pool:
    """The pool.

    :raises Refused: when the file is missing, or is not one of the allocator's.
    """
    text = machine.read(FILE)
    if text is None:
        raise Refused(Status.RESOURCES, f"{FILE}: not there; it comes with nitro-cli")
    found = [match for line in text.splitlines() if (match := _LINE.match(line))]
    values: dict[str, list[str]] = {"memory_mib": [], "cpu_count": [], "cpu_pool": []}
    for match in found:
        values[match[2]].append(match[4])
    try:
        memory = sum(int(value) for value in values["memory_mib"])
        cpus = sum(int(value) for value in values["cpu_count"]) + len(cpu_list(",".join(values["cpu_pool"])))
    except ValueError as error:
        raise Refused(Status.RESOURCES, f"{FILE}: {error}") from error
    if not memory or not cpus:
        raise Refused(Status.RESOURCES, f"{FILE}: memory_mib and cpu_count or cpu_pool are needed")
    return Pool(memory, cpus, named=bool(values["cpu_pool"]), parts=len(values["memory_mib"]))


def edited(text: str, memory_mib: int, cpu_count: int) -> str:
    """*text* with these values, as far as they are larger."""

    def larger(match: re.Match[str]) -> str:
        before, key, colon, old, rest = match.groups()
        wanted = {"memory_mib": memory_mib, "cpu_count": cpu_count}.get(key, 0)
        value = old if key == "cpu_pool" else str(max(int(old), wanted))
        return f"{before}{key}{colon}{value}{rest}"

    return "".join(_LINE.sub(larger, line.rstrip("\n")) + "\n" for line in text.splitlines(keepends=True))


def cpu_list(text: str) -> list[int]:
    """``2,3,6-9`` as numbers, in the kernel's and the allocator's notation.

    :raises ValueError: when it is something else.
    """
    return list(_cpus(text.strip()))


def _cpus(text: str) -> Iterable[int]:
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        yield from range(int(first), int(last if dash else first) + 1)


def backup_of(machine: Machine) -> Path:
    """Where the file before the first edit is kept."""
    return machine.path("/var/lib/nitroproxy/allocator.yaml")
