"""The Python environment in /opt/nitroproxy-VERSION, made of the wheels, without pip.

It is made at its own place, which nothing uses until the link /opt/nitroproxy is switched to it.
"""

from __future__ import annotations

import compileall
import shutil
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nitroproxy.deploy.artifacts import entry_points, unpack
from nitroproxy.deploy.failure import Refused, Status
from nitroproxy.deploy.machine import CommandFailed, Machine

#: The link that units and people use, and how the environments behind it are named.
LINK: Final = "/opt/nitroproxy"
#: In an environment: the digest of what it was made of. Written last.
_COMPLETE: Final = ".nitroproxy"


def place(machine: Machine, version: str, digest: str) -> str:
    """Where the environment of *digest* is, or will be: another of the same version is left alone."""
    plain = f"{LINK}-{version}"
    taken = machine.path(plain).exists() and not is_complete(machine, plain, digest)
    return f"{plain}.{digest[:8]}" if taken else plain


def is_complete(machine: Machine, directory: str, digest: str) -> bool:
    """Whether the environment in *directory* is the one of *digest*, and whole."""
    return machine.read(f"{directory}/{_COMPLETE}") == digest


def make(machine: Machine, directory: str, wheels: Sequence[Path], digest: str, *, compiled: bool = True) -> None:
    """Make the environment.

    :param compiled: with bytecode; the daemons' sandbox cannot write it later.
    :raises Refused: when it cannot be made; then nothing is left of it.
    """
    path = machine.path(directory)
    try:
        _fill(machine, path, wheels, compiled=compiled)
        (path / _COMPLETE).write_text(digest)
    except BaseException as error:
        shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, OSError | CommandFailed):
            raise Refused(Status.INSTANCE, f"{directory} cannot be made: {error}") from error
        raise


def _fill(machine: Machine, path: Path, wheels: Sequence[Path], *, compiled: bool) -> None:
    shutil.rmtree(path, ignore_errors=True)  # What an interrupted deployment has left.
    path.parent.mkdir(mode=0o755, exist_ok=True)
    machine.run(sys.executable, "-m", "venv", "--without-pip", path)
    [site] = path.glob("lib/python3*/site-packages")
    for wheel in wheels:
        unpack(wheel, site)
    for data in site.glob("*.data"):
        _place_data(data, path, site)
    for name, module, function in entry_points(site):
        program = path / "bin" / name
        program.write_text(
            f"#!{path}/bin/python\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
        )
        program.chmod(0o755)
    if compiled:
        _compile(site)
    for entry in [path, *path.rglob("*")]:
        if not entry.is_symlink():
            executable = entry.is_dir() or entry.stat().st_mode & stat.S_IXUSR
            entry.chmod(0o755 if executable else 0o644)


def _compile(site: Path) -> None:
    try:
        compileall.compile_dir(site, quiet=2, workers=0)
    except OSError:  # Several processes need /dev/shm.
        compileall.compile_dir(site, quiet=2)


def _place_data(data: Path, path: Path, site: Path) -> None:
    """Move what a wheel wants elsewhere than among the modules (the binary distribution format's ``.data``)."""
    targets = {"data": path, "scripts": path / "bin", "purelib": site, "platlib": site}
    for kind in data.iterdir():
        if kind.name in targets:
            shutil.copytree(kind, targets[kind.name], dirs_exist_ok=True)
    shutil.rmtree(data)


def current(machine: Machine) -> str | None:
    """The directory that the link leads to; None when there is none."""
    link = machine.path(LINK)
    return str(Path(LINK).parent / link.readlink()) if link.is_symlink() else None


def switch(machine: Machine, directory: str | None) -> None:
    """Have the link lead to *directory*, in one step; None: to nothing, which removes it.

    :raises Refused: when something else is in its place.
    """
    link = machine.path(LINK)
    if link.exists() and not link.is_symlink():
        raise Refused(Status.INSTANCE, f"{LINK} is not a link of a deployment: move it away, and run deploy.sh again")
    if directory is None:
        link.unlink(missing_ok=True)
        return
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(Path(directory).name)
    new.replace(link)
