"""The directory that ``scripts/build.sh artifacts`` made: digests, wheels for this Python, and the image."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nitroproxy.deploy.failure import Refused, Status

SUMS: Final = "SHA256SUMS"
_LOCKED: Final = re.compile(r"(?m)^([a-z0-9-]+)==([^ \\]+)")
_MANYLINUX: Final = re.compile(r"manylinux_(\d+)_(\d+)_(\w+)")
#: Older names of manylinux platforms (PEP 600), with the glibc that they need.
_OLD_NAMES: Final = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


class Artifacts:
    """The directory.

    :ivar directory: where it is.
    :ivar wheel: nitroproxy's own wheel.
    :ivar version: of nitroproxy.
    :raises Refused: when it is no such directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        own = sorted(directory.glob("wheels/nitroproxy-*-py3-none-any.whl"))
        if len(own) != 1:
            raise Refused(Status.USAGE, f"{directory} is not a directory that scripts/build.sh artifacts made")
        [self.wheel] = own
        self.version = self.wheel.name.split("-")[1]

    @property
    def eif(self) -> Path:
        """The enclave's image."""
        return self.directory / "enclave.eif"

    def check_sums(self) -> int:
        """Compare every file with its digest; how many there are.

        :raises Refused: naming the first file that is missing, differs, or has no digest.
        """
        try:
            lines = (self.directory / SUMS).read_text("utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise Refused(Status.IMAGE, f"{SUMS} cannot be read: {error}") from error
        pairs = (line.split("  ", 1) for line in lines if "  " in line)
        sums = {name: digest for digest, name in pairs}
        for name, digest in sums.items():
            try:
                found = _sha256(self.directory / name)
            except OSError as error:
                raise Refused(
                    Status.IMAGE, f"{name}: in {SUMS}, but {error.strerror}; copy the artifacts again"
                ) from None
            if found != digest:
                raise Refused(Status.IMAGE, f"{name}: differs from its digest in {SUMS}; copy the artifacts again")
        for path in sorted(self.directory.glob("wheels/*")):
            if f"wheels/{path.name}" not in sums:
                raise Refused(Status.IMAGE, f"wheels/{path.name}: has no digest in {SUMS}; copy the artifacts again")
        return len(sums)

    def digest(self, wheels: list[Path]) -> str:
        """Of what an environment of *wheels* for this Python is made of."""
        python = f"{sys.version_info.major}.{sys.version_info.minor}\n"
        return hashlib.sha256("\n".join([python, *map(_sha256, sorted(wheels))]).encode()).hexdigest()

    def wheels(self, architecture: str) -> list[Path]:
        """The wheels for this Python on *architecture*: one for each locked package, and nitroproxy's.

        :raises Refused: when one is missing.
        """
        try:
            lock = (self.directory / "requirements.lock").read_text("utf-8")
        except OSError as error:
            raise Refused(Status.IMAGE, f"requirements.lock: {error.strerror}; copy the artifacts again") from error
        fitting: dict[tuple[str, str], Path] = {}
        for path in sorted(self.directory.glob("wheels/*.whl")):
            if fits(path.name, sys.version_info.minor, architecture, glibc()):
                name, version = path.name.split("-")[:2]
                fitting[re.sub(r"[-_.]+", "-", name).lower(), version] = path
        wanted = dict.fromkeys(_LOCKED.findall(lock))
        missing = sorted(name for name, version in wanted if (name, version) not in fitting)
        if missing:
            python = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise Refused(
                Status.INSTANCE,
                f"the artifacts have no wheel of {', '.join(missing)} for Python {python} on {architecture} with glibc "
                f"{'.'.join(map(str, glibc()))}; build with --python {python} --machine {architecture}, or set PYTHON",
            )
        return [*(fitting[key] for key in wanted), self.wheel]


def glibc() -> tuple[int, int]:
    """The version of this system's glibc; (0, 0) when it has another library."""
    try:
        said = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):  # musl knows no such name
        said = ""
    found = re.match(r"glibc (\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def fits(name: str, minor: int, architecture: str, libc: tuple[int, int]) -> bool:
    """Whether a wheel is for CPython 3.*minor* on *architecture* with glibc *libc*, by its name (PEP 425, PEP 600)."""
    pythons, abis, platforms = (part.split(".") for part in name.removesuffix(".whl").split("-")[-3:])
    return any(
        _fits_python(python, abi, minor) and _fits_platform(platform, architecture, libc)
        for python in pythons
        for abi in abis
        for platform in platforms
    )


def _fits_python(python: str, abi: str, minor: int) -> bool:
    found = re.fullmatch(r"(cp|py)3(\d*)", python)
    if found is None:
        return False
    own = int(found[2]) if found[2] else 0
    if found[1] == "py":
        return abi == "none" and own <= minor
    return (
        (abi == f"cp3{minor}" and own == minor) or (abi == "abi3" and own <= minor) or (abi == "none" and own == minor)
    )


def _fits_platform(platform: str, architecture: str, libc: tuple[int, int]) -> bool:
    if platform == "any":
        return True
    found = _MANYLINUX.fullmatch(platform)
    if found:
        return found[3] == architecture and (int(found[1]), int(found[2])) <= libc
    old, _, machine = platform.partition("_")
    return machine == architecture and old in _OLD_NAMES and _OLD_NAMES[old] <= libc


def unpack(wheel: Path, to: Path) -> None:
    """Unpack a wheel into the directory *to*.

    :raises Refused: when it is damaged, or a member would leave the directory.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith("/") or ".." in name.split("/"):
                    raise Refused(Status.IMAGE, f"{wheel.name}: {name} leaves the directory")
            archive.extractall(to)  # the names have been checked
    except (OSError, zipfile.BadZipFile) as error:
        raise Refused(Status.IMAGE, f"{wheel.name} cannot be unpacked: {error}") from error


def entry_points(directory: Path) -> Iterator[tuple[str, str, str]]:
    """The programs of the wheels unpacked in *directory*: name, module and function of each."""
    for path in sorted(directory.glob("*.dist-info/entry_points.txt")):
        section = ""
        for line in map(str.strip, path.read_text("utf-8").splitlines()):
            if line.startswith("["):
                section = line.strip("[]")
            elif section == "console_scripts" and "=" in line:
                name, _, place = line.partition("=")
                module, _, function = place.split("[")[0].strip().partition(":")
                yield name.strip(), module, function


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
