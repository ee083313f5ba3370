"""What boots the root: kernel, command line and boot ramdisk, from a directory or from single files.

A directory of blobs is laid out as AWS's package ``aws-nitro-enclaves-cli-devel`` puts it under
``/usr/share/nitro_enclaves/blobs``: ``bzImage`` (x86_64) or ``Image`` (aarch64), ``cmdline``, ``init`` and ``nsm.ko``.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from nitroproxy.image.errors import ImageError
from nitroproxy.image.layout import MOST_BYTES, Architecture, Kind
from nitroproxy.image.reader import open_regular
from nitroproxy.image.tree import Node, Tree

#: Where AWS's package puts its blobs.
BLOBS: Final = Path("/usr/share/nitro_enclaves/blobs")
_KERNELS: Final = {Architecture.X86_64: "bzImage", Architecture.AARCH64: "Image"}
#: Linux/x86 boot protocol (Documentation/arch/x86/boot.rst): signature at 0x202, offset of the version at 0x20e.
_BOOT_MAGIC: Final = b"HdrS"
_BOOT_MAGIC_AT: Final = 0x202
_BOOT_VERSION_AT: Final = 0x20E
_BOOT_SETUP: Final = 0x200
_VERSION_BYTES: Final = 256
#: arm64 (Documentation/arch/arm64/booting.rst): "ARM\x64" at 56.
_ARM64_MAGIC: Final = b"ARM\x64"
_ARM64_MAGIC_AT: Final = 56
_HEAD_BYTES: Final = 0x10000


@dataclass(frozen=True)
class Boot:
    """What boots the root.

    :ivar ramdisk: the tree of the first ramdisk, with ``/init``.
    """

    kernel: Path
    cmdline: str
    ramdisk: Tree


def nitro_blobs(directory: Path, architecture: Architecture) -> Boot:
    """AWS's blobs in *directory*.

    :raises ImageError: naming the file that is missing.
    """
    ramdisk = Tree()
    for name, mode, needed in (("init", 0o755, True), ("nsm.ko", 0o644, False)):
        path = directory / name
        if not needed and not path.exists():
            continue  # kernels with the NSM's driver built in come without the module
        size = _size(path)
        ramdisk.add(name, Node(stat.S_IFREG | mode, size=size, content=partial(_open, path)))
    ramdisk.add("dev", Node(stat.S_IFDIR | 0o755))
    return Boot(directory / _KERNELS[architecture], read_cmdline(directory / "cmdline"), ramdisk)


def read_cmdline(path: Path) -> str:
    """The kernel's command line in the file *path*, without line ends around it.

    :raises ImageError: it cannot be read or is no command line.
    """
    most = MOST_BYTES[Kind.CMDLINE]
    try:
        with open_regular(path) as file:
            text = file.read(most + 1).decode().strip()
    except (ImageError, UnicodeDecodeError) as error:
        raise ImageError(f"{path}: {error}") from error
    check_cmdline(text)
    return text


def check_cmdline(text: str) -> None:
    """Refuse what no kernel takes as its command line.

    :raises ImageError: it has control characters or is too long.
    """
    if not text.isprintable():
        raise ImageError("command line: expected one line of printable characters")
    if len(text.encode()) > MOST_BYTES[Kind.CMDLINE]:
        raise ImageError(f"command line: {len(text.encode())} bytes, at most {MOST_BYTES[Kind.CMDLINE]} are allowed")


def kernel_version(path: Path, architecture: Architecture) -> str:
    """The version that an x86_64 kernel names in its boot header; "unknown" for aarch64, whose header has none.

    :raises ImageError: the file is not a kernel for *architecture*.
    """
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD_BYTES)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    if architecture is Architecture.AARCH64:
        if head[_ARM64_MAGIC_AT:][:4] != _ARM64_MAGIC:
            raise ImageError(f"{path}: not a kernel for aarch64: expected the uncompressed Image")
        return "unknown"
    if head[_BOOT_MAGIC_AT:][:4] != _BOOT_MAGIC:
        raise ImageError(f"{path}: not a kernel for x86_64: expected a bzImage")
    (offset,) = struct.unpack_from("<H", head, _BOOT_VERSION_AT)
    words = head[_BOOT_SETUP + offset :][:_VERSION_BYTES].partition(b"\0")[0].split()
    return words[0].decode("ascii", "replace") if offset and words else "unknown"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error


def _open(path: Path) -> BinaryIO:
    return path.open("rb")
