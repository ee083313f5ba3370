"""Puts a generation in place: the link to its environment, units and configuration, the image of the enclave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nitroproxy.deploy import environment, state
from nitroproxy.deploy.changes import Changes, prune
from nitroproxy.deploy.failure import Refused, Status
from nitroproxy.deploy.machine import CommandFailed, Machine
from nitroproxy.deploy.start import ANY_KERNEL, ANY_KERNEL_TEXT, ENCLAVE, LISTEN, SOCKET, listen_file

if TYPE_CHECKING:
    from nitroproxy.config.ends import HostProxy

#: The link by which people find the command.
COMMAND: Final = "/usr/local/bin/nitroproxy"
_PROGRAM: Final = f"{environment.LINK}/bin/nitroproxy"
_SYSUSERS: Final = "systemd-sysusers"
#: Files that the host daemon reads at its start.
_OF_HOST: Final = ("nitroproxy-host.service", "etc/nitroproxy/")


@dataclass
class Changed:
    """What a generation has changed, and so has to be restarted.

    :ivar host: the host daemon's files.
    :ivar socket: the address of the gateway's socket.
    :ivar enclave: the image, or what starts it.
    """

    host: bool = False
    socket: bool = False
    enclave: bool = False

    @property
    def anything(self) -> bool:
        """Whether there was a change at all."""
        return self.host or self.socket or self.enclave


def put_link(machine: Machine, directory: str, changes: Changes, changed: Changed) -> None:
    """Switch the link to the environment, and have the command in PATH."""
    before = environment.current(machine)
    if before != directory:
        changes.did(lambda: environment.switch(machine, before))
        environment.switch(machine, directory)
        changed.host = True
    command = machine.path(COMMAND)
    if not command.exists() and not command.is_symlink():
        changes.did(lambda: command.unlink(missing_ok=True))
        command.parent.mkdir(parents=True, exist_ok=True)
        command.symlink_to(_PROGRAM)


def put_files(
    machine: Machine, directory: str, changes: Changes, changed: Changed, say: Callable[[str], object]
) -> None:
    """Have the environment's own install-units put units, users and configuration in place.

    :raises Refused: when it cannot.
    """
    from nitroproxy.commands.install_units import installed_files

    config = machine.path(state.CONFIG)
    changes.keep(installed_files(machine.root))
    program = machine.path(directory) / "bin" / "nitroproxy"
    try:
        said = machine.run(
            program, "install-units", "--root", machine.root, "--prefix", environment.LINK, "--config", config
        )
        machine.run(_SYSUSERS, *([] if machine.root == Path("/") else [f"--root={machine.root}"]))
    except CommandFailed as error:
        raise Refused(Status.INSTANCE, str(error)) from error
    for line in said.splitlines():
        outcome, _, path = line.partition(" ")
        if outcome in ("new", "updated", "edited"):
            say(line.rstrip())
        if outcome in ("new", "updated"):
            changed.host = changed.host or any(name in path for name in _OF_HOST)
            changed.socket = changed.socket or path.endswith(SOCKET)
            changed.enclave = changed.enclave or path.endswith(ENCLAVE)


def put_drop_ins(machine: Machine, gateway: HostProxy, changes: Changes, changed: Changed, *, any_kernel: bool) -> None:
    """Have the socket unit listen where the configuration wants the gateway, and run-enclave take an image of the
    emulator if that was asked for.
    """
    changed.socket = _put_drop_in(machine, LISTEN, listen_file(gateway), changes) or changed.socket
    text = ANY_KERNEL_TEXT if any_kernel else ""
    changed.enclave = _put_drop_in(machine, ANY_KERNEL, text, changes) or changed.enclave


def _put_drop_in(machine: Machine, place: str, wanted: str, changes: Changes) -> bool:
    """Write the file, or remove it when nothing is wanted; whether that was a change."""
    path = machine.path(place)
    if (machine.read(place) or "") == wanted:
        return False
    changes.did(lambda: prune(path.parent, path.parent.parent))
    changes.keep([path])
    if wanted:
        state.replace(path, wanted.encode())
    else:
        path.unlink()
        prune(path.parent, path.parent.parent)
    return True


def put_copy(machine: Machine, place: str, source: Path, changes: Changes) -> bool:
    """Put a copy of *source* in *place*, unless it is there already; whether it was another file."""
    if state.same_content(machine.path(place), source):
        return False
    changes.did(lambda: state.restore(machine, place))
    state.put_file(machine, place, source)
    return True
