"""Takes a deployment away: units, environments, the image, links; edited configuration only when asked to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nitroproxy.deploy import allocator, environment, state
from nitroproxy.deploy.changes import prune
from nitroproxy.deploy.failure import Refused, Status
from nitroproxy.deploy.install import COMMAND
from nitroproxy.deploy.machine import CommandFailed, Machine
from nitroproxy.deploy.start import ANY_KERNEL, LISTEN, UNITS

#: Those that the definition of the system users makes.
_USERS: Final = ("nitroproxy-eif", "nitroproxy-credentials")


def remove(machine: Machine, *, purge: bool, dry: bool, say: Callable[[str], object]) -> None:
    """Stop the units and remove what deploy.sh has put in place.

    :param purge: remove configuration that has been edited, too.
    :param dry: only say what would be removed.
    :raises Refused: when nothing is deployed, or something cannot be removed.
    """
    directory = environment.current(machine)
    if directory is None and state.read_state(machine) is None:
        raise Refused(Status.USAGE, "nothing is deployed here by deploy.sh")
    if dry:
        for line in (*UNITS, *environments(machine), state.DIRECTORY, COMMAND):
            say(f"would remove {line}")
        return
    others = {path.name for path in machine.path("/etc/systemd/system").glob("nitroproxy-*.*") if path.is_file()}
    for unit in (*reversed(UNITS), *sorted(others - set(UNITS))):
        machine.succeeds("systemctl", "disable", "--now", "--quiet", unit)
    try:
        if directory is not None:
            program = machine.path(directory) / "bin" / "nitroproxy"
            say(
                machine.run(
                    program, "install-units", "--remove", "--root", machine.root, *(["--purge"] if purge else [])
                ).rstrip()
            )
        _forget_allocator(machine, say)
        _remove_files(machine, say)
    except (CommandFailed, OSError) as error:
        raise Refused(Status.INSTANCE, f"not removed: {error}") from error
    machine.succeeds("systemctl", "daemon-reload")
    if machine.root == Path("/"):
        for user in _USERS:
            machine.succeeds("userdel", user)


def environments(machine: Machine) -> list[str]:
    """The environments that deployments have made."""
    found = machine.path(environment.LINK).parent.glob(f"{Path(environment.LINK).name}-*")
    return sorted(f"{Path(environment.LINK).parent}/{path.name}" for path in found if (path / ".nitroproxy").is_file())


def _forget_allocator(machine: Machine, say: Callable[[str], object]) -> None:
    backup = allocator.backup_of(machine)
    if backup.exists():
        say(f"{allocator.FILE}: left as it is; it was, before deploy.sh --allocate:\n{backup.read_text()}")
        backup.unlink()


def _remove_files(machine: Machine, say: Callable[[str], object]) -> None:
    for directory in environments(machine):
        shutil.rmtree(machine.path(directory))
        say(f"removed    {directory}")
    environment.switch(machine, None)
    command = machine.path(COMMAND)
    if command.is_symlink() and str(command.readlink()).startswith(environment.LINK + "/"):
        command.unlink()
    for place in (LISTEN, ANY_KERNEL):
        path = machine.path(place)
        path.unlink(missing_ok=True)
        prune(path.parent, path.parent.parent)
    places = [path for place in (state.EIF, state.CONFIG) for path in (place, f"{place}.previous")]
    for path in (*map(machine.path, places), *state.files(machine)):
        path.unlink(missing_ok=True)
    shutil.rmtree(machine.path("/run/nitroproxy"), ignore_errors=True)
    for place in (state.DIRECTORY, "/etc/nitroproxy"):
        path = machine.path(place)
        prune(path, path.parent)
