"""Whether this machine is a parent instance: its system, the device of enclaves, nitro-cli."""

from __future__ import annotations

import re
import shlex
import stat

from nitroproxy.deploy.failure import Refused, Status
from nitroproxy.deploy.machine import Machine

DEVICE = "/dev/nitro_enclaves"
GROUP = "ne"
#: Systems that are known to work or not: the name in os-release, the oldest version, and what installs nitro-cli.
_SYSTEMS = {
    "amzn": (2023, "dnf install aws-nitro-enclaves-cli aws-nitro-enclaves-cli-devel"),
    "ubuntu": (22, "build it from source: https://github.com/aws/aws-nitro-enclaves-cli"),
    "debian": (12, "build it from source: https://github.com/aws/aws-nitro-enclaves-cli"),
}


def check_system(machine: Machine) -> str:
    """Refuse a system that cannot work; returns its name, with a word about one that nobody has tried.

    :raises Refused: naming the systems that do.
    """
    release = _os_release(machine)
    name = release.get("PRETTY_NAME") or "an unknown system"
    found = re.match(r"\d+", release.get("VERSION_ID", ""))
    oldest, _ = _SYSTEMS.get(release.get("ID", ""), (None, ""))
    if oldest is not None and (found is None or int(found[0]) < oldest):
        raise Refused(Status.INSTANCE, f"{name} is too old: Amazon Linux 2023, Ubuntu 22.04, Debian 12 or later")
    if machine.architecture not in ("x86_64", "aarch64"):
        raise Refused(Status.INSTANCE, f"there are no Nitro Enclaves on {machine.architecture}")
    return f"{name}, {machine.architecture}" + ("" if oldest is not None else " (not tested on this system)")


def check_enclaves(machine: Machine) -> str:
    """Refuse an instance on which no enclave can be started; returns what was found.

    :raises Refused: naming what is missing and how to get it.
    """
    device = machine.path(DEVICE)
    if not device.exists():
        raise Refused(
            Status.INSTANCE,
            f"there is no {DEVICE}: launch an instance of a type with Nitro Enclaves and with them enabled "
            "(--enclave-options Enabled=true); on one that has them, modprobe nitro_enclaves",
        )
    if not machine.has("nitro-cli"):
        raise Refused(Status.INSTANCE, f"there is no nitro-cli: {_how_to_install(machine)}")
    group = _group(machine)
    status = device.stat()
    if status.st_gid != group or stat.S_IMODE(status.st_mode) & 0o060 != 0o060:
        raise Refused(
            Status.INSTANCE,
            f"{DEVICE} is not for group {GROUP}, to which the service's user belongs: chgrp {GROUP} {DEVICE} && chmod "
            f"0660 {DEVICE}, by a udev rule as aws-nitro-enclaves-cli brings it",
        )
    return f"{DEVICE}, nitro-cli, group {GROUP}"


def _group(machine: Machine) -> int:
    for line in (machine.read("/etc/group") or "").splitlines():
        name, _, rest = line.partition(":")
        if name == GROUP and rest.count(":") >= 1:
            return int(rest.split(":")[1])
    raise Refused(Status.INSTANCE, f"there is no group {GROUP}: groupadd --system {GROUP}, then chgrp {GROUP} {DEVICE}")


def _how_to_install(machine: Machine) -> str:
    return _SYSTEMS.get(_os_release(machine).get("ID", ""), (0, "install aws-nitro-enclaves-cli"))[1]


def _os_release(machine: Machine) -> dict[str, str]:
    found = {}
    for line in (machine.read("/etc/os-release") or "").splitlines():
        name, _, value = line.partition("=")
        words = shlex.split(value) if value.count('"') % 2 == 0 else []
        found[name] = words[0] if words else ""
    return found
