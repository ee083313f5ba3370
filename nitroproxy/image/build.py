"""Builds an enclave image from a root file system and what boots it.

The boot ramdisk (PCR1) comes first. The second ramdisk (PCR2) is laid out as AWS's init expects it: the root file
system in ``/rootfs``, the command in ``/cmd`` and the environment in ``/env``, one entry a line. The same inputs give
the same bytes: names are sorted, no time is later than the one given, and nothing of the building machine is in it.
"""

from __future__ import annotations

import io
import json
import os
import stat
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from nitroproxy.image.cpio import write_ramdisk
from nitroproxy.image.errors import ImageError
from nitroproxy.image.kernel import Boot, check_cmdline, kernel_version
from nitroproxy.image.layout import Architecture, Kind
from nitroproxy.image.measurements import Measurements
from nitroproxy.image.output import replacing
from nitroproxy.image.reader import open_regular
from nitroproxy.image.tree import Node, Tree
from nitroproxy.image.writer import Part, write_image

#: What the boot parts are: AWS's, for the emulator only, or the user's own. It stands in the metadata.
BootKind = Literal["nitro", "emulator", "custom"]
#: Directories that an init mounts on or that programs expect.
_DIRECTORIES: Final = {"dev": 0o755, "proc": 0o755, "run": 0o755, "sys": 0o755, "tmp": 0o1777, "var": 0o755}
_PREFIX: Final = "rootfs"
#: Where AWS's init, by execvpe, looks for a program when the environment has no PATH.
_DEFAULT_PATH: Final = "/bin:/usr/bin"


@dataclass(frozen=True)
class Plan:
    """What to build.

    :ivar command: the program that the image's init starts, and its arguments.
    :ivar environment: ``NAME=VALUE`` entries.
    :ivar tool_version: of nitroproxy.
    :ivar time: the build's, in seconds since 1970 (SOURCE_DATE_EPOCH); files that are newer get it.
    """

    root: Tree
    boot: Boot
    boot_kind: BootKind
    architecture: Architecture
    command: Sequence[str]
    environment: Sequence[str]
    name: str
    version: str
    tool_version: str
    time: int = 0


@dataclass(frozen=True)
class Built:
    """An image that has been written.

    :ivar image_bytes: of the file.
    :ivar root_bytes: of the ramdisks when they are unpacked.
    """

    measurements: Measurements
    image_bytes: int
    root_bytes: int


def build_image(plan: Plan, output: Path) -> Built:
    """Write the image to *output*, which is replaced only when everything has gone well.

    :raises ImageError: an input cannot be read or does not fit the format.
    """
    check_cmdline(plan.boot.cmdline)
    if plan.boot.ramdisk.get("init") is None:
        raise ImageError("boot ramdisk: there is no /init, the first program that the kernel starts")
    version = kernel_version(plan.boot.kernel, plan.architecture)
    with ExitStack() as files:
        kernel = files.enter_context(open_regular(plan.boot.kernel))
        unpacked, ramdisks = 0, []
        for tree in (plan.boot.ramdisk, application_tree(plan)):
            file = files.enter_context(tempfile.TemporaryFile())
            unpacked += write_ramdisk(file, tree, time=plan.time)
            ramdisks.append(_rewound(Kind.RAMDISK, file))
        metadata = json.dumps(_metadata(plan, version, unpacked), separators=(",", ":")).encode()
        parts = [
            _rewound(Kind.KERNEL, kernel),
            Part.of(Kind.CMDLINE, plan.boot.cmdline.encode()),
            Part.of(Kind.METADATA, metadata),
            *ramdisks,
        ]
        with replacing(output) as out:
            measured = write_image(out, plan.architecture, parts)
            return Built(measured, out.tell(), unpacked)


def application_tree(plan: Plan) -> Tree:
    """The tree of the second ramdisk.

    :raises ImageError: the command is missing in the root, or an entry does not fit a line.
    """
    if not plan.command:
        raise ImageError("command: the root's archive names none; give one")
    _check_command(plan)
    tree = plan.root.below(_PREFIX)
    for name, mode in _DIRECTORIES.items():
        if tree.get(f"{_PREFIX}/{name}") is None:
            tree.add(f"{_PREFIX}/{name}", Node(stat.S_IFDIR | mode))
    for name, lines in (("cmd", plan.command), ("env", plan.environment)):
        tree.add(name, _text(name, lines))
    return tree


def _check_command(plan: Plan) -> None:
    """Refuse a program that is not in the root, which would otherwise show only when the enclave boots."""
    program = plan.command[0]
    folders = [""] if "/" in program else _search_path(plan.environment)
    if all(plan.root.get(f"{folder}/{program}") is None for folder in folders):
        where = f" in {':'.join(folders)}" if folders != [""] else ""
        raise ImageError(f"command: there is no {program}{where} in the root file system")


def _search_path(environment: Sequence[str]) -> list[str]:
    values = [entry.removeprefix("PATH=") for entry in environment if entry.startswith("PATH=")]
    return (values[-1] if values else _DEFAULT_PATH).split(":")


def _text(name: str, lines: Sequence[str]) -> Node:
    for line in lines:
        if not line or any(character in line for character in "\n\0"):
            raise ImageError(f"{name}: {line!r}: entries must not be empty, nor have line ends or NULs")
        if name == "env" and "=" not in line:
            raise ImageError(f"{name}: {line!r}: expected NAME=VALUE")
    data = "".join(f"{line}\n" for line in lines).encode()
    return Node(stat.S_IFREG | 0o644, size=len(data), content=partial(_memory, data))


def _memory(data: bytes) -> BinaryIO:
    return io.BytesIO(data)


def _rewound(kind: Kind, file: BinaryIO) -> Part:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return Part(kind, file, size)


def _metadata(plan: Plan, kernel: str, unpacked: int) -> Mapping[str, Any]:
    """The metadata section, with the fields that nitro-cli wants."""
    time = datetime.fromtimestamp(plan.time, UTC).isoformat()
    return {
        "ImageName": plan.name,
        "ImageVersion": plan.version,
        "BuildMetadata": {
            "BuildTime": time,
            "BuildTool": "nitroproxy",
            "BuildToolVersion": plan.tool_version,
            "OperatingSystem": "Linux",
            "KernelVersion": kernel,
        },
        "DockerInfo": None,
        "CustomMetadata": {"nitroproxy": {"boot": plan.boot_kind, "root_bytes": unpacked}},
    }
