"""What is deployed: the generation in force and the one before, in /var/lib/nitroproxy.

A generation is an environment, the configuration that came with the artifacts, and the image of the enclave. The files
of the one before lie beside those in force, as ``.previous``.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from nitroproxy.deploy.machine import Machine

DIRECTORY: Final = "/var/lib/nitroproxy"
_STATE: Final = f"{DIRECTORY}/deployed.json"
EIF: Final = f"{DIRECTORY}/enclave.eif"
CONFIG: Final = f"{DIRECTORY}/config.json"
_PREVIOUS: Final = ".previous"


@dataclass(frozen=True)
class Generation:
    """A version that is, or was, deployed.

    :ivar directory: its environment.
    :ivar any_kernel: its image may be one of the emulator.
    """

    version: str
    directory: str
    any_kernel: bool = False


@dataclass(frozen=True)
class State:
    """The generation in force, and the one before."""

    current: Generation
    previous: Generation | None = None


def read_state(machine: Machine) -> State | None:
    """What is deployed; None when nothing is, or not by deploy.sh."""
    try:
        found: Any = json.loads(machine.read(_STATE) or "null")
        if found is None:
            return None
        previous = found["previous"]
        return State(Generation(**found["current"]), Generation(**previous) if previous else None)
    except (ValueError, TypeError, KeyError):
        return None


def write_state(machine: Machine, state: State) -> None:
    """Note what is deployed."""
    replace(machine.path(_STATE), (json.dumps(asdict(state), indent=2) + "\n").encode())


def files(machine: Machine) -> list[Path]:
    """The small files of the state, which `nitroproxy.deploy.changes.Changes.keep` can keep."""
    return [machine.path(_STATE), machine.path(CONFIG), machine.path(CONFIG + _PREVIOUS)]


def replace(path: Path, content: bytes) -> None:
    """Replace a small file as a whole, readable by everyone; its directory is made."""
    make_directory(path.parent)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.chmod(0o644)
    new.replace(path)


def make_directory(path: Path) -> None:
    """Make a directory that everyone may read, and those above it."""
    if not path.exists():
        make_directory(path.parent)
        path.mkdir()
        path.chmod(0o755)


def same_content(first: Path, second: Path) -> bool:
    """Whether two files have the same bytes; False when one is missing."""
    if not (first.is_file() and second.is_file()) or first.stat().st_size != second.stat().st_size:
        return False
    with first.open("rb") as one, second.open("rb") as other:
        while piece := one.read(1 << 20):
            if piece != other.read(1 << 20):
                return False
    return True


def put_file(machine: Machine, place: str, source: Path) -> None:
    """Put a copy of *source* in *place* in one step; what was there is kept until `commit` or `restore`."""
    path, before = _paths(machine, place)
    make_directory(path.parent)
    new = path.with_name(f".{path.name}.new")
    with source.open("rb") as reading, new.open("wb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(writing.fileno())
    new.chmod(0o644)
    before.unlink(missing_ok=True)
    if path.exists():
        os.link(path, before)
    new.replace(path)


def restore(machine: Machine, place: str) -> None:
    """Undo `put_file`."""
    path, before = _paths(machine, place)
    if before.exists():
        before.replace(path)
    else:
        path.unlink(missing_ok=True)


def commit(machine: Machine, place: str) -> None:
    """Make what was in *place* the previous file. A file that was not replaced belongs to both generations."""
    path, before = _paths(machine, place)
    if not before.exists():
        os.link(path, before)
    _move(before, path.with_name(path.name + _PREVIOUS))


def _move(source: Path, target: Path) -> None:
    """Rename. Between two links of one file the kernel's rename does nothing: *source* goes then, too."""
    source.replace(target)
    source.unlink(missing_ok=True)


def _paths(machine: Machine, place: str) -> tuple[Path, Path]:
    path = machine.path(place)
    return path, path.with_name(f".{path.name}.before")


def swap_previous(machine: Machine, place: str) -> None:
    """Exchange the file of *place* and the previous one; without a previous one nothing happens."""
    path = machine.path(place)
    previous, between = path.with_name(path.name + _PREVIOUS), path.with_name(f".{path.name}.swap")
    if previous.exists():
        os.link(path, between)
        _move(previous, path)
        _move(between, previous)
