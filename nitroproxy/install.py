"""Puts units, configuration and system users in place: `nitroproxy install-units`. A file that somebody has edited is
never overwritten: the new one is put beside it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: The programs' directory in the units as they are distributed.
_PROGRAMS: Final = "/opt/nitroproxy/bin"
#: Where the digests of what was installed are kept: a file that differs from its digest has been edited.
_MANIFEST: Final = "var/lib/nitroproxy/installed.json"
#: Files by where they come from, and where they go.
_FILES: Final = {
    "systemd/nitroproxy-host.service": "etc/systemd/system/nitroproxy-host.service",
    "systemd/nitroproxy-host.socket": "etc/systemd/system/nitroproxy-host.socket",
    "systemd/nitroproxy-enclave.service": "etc/systemd/system/nitroproxy-enclave.service",
    "systemd/nitroproxy-eif.service": "etc/systemd/system/nitroproxy-eif.service",
    "systemd/nitroproxy.sysusers": "etc/sysusers.d/nitroproxy.conf",
    "etc/config.json": "etc/nitroproxy/config.json",
    "etc/nitroproxy.env": "etc/nitroproxy/nitroproxy.env",
}


class InstallError(Exception):
    """Something could not be put in place; the message names it."""


@dataclass(frozen=True)
class Placed:
    """What became of one file.

    :ivar outcome: ``new``, ``unchanged``, ``updated``, or ``edited``: it was left alone, and the new one is beside it.
    """

    path: Path
    outcome: str


def source_directory() -> Path:
    """Where the distributed files are: beside an installed package's data, or in the source tree.

    :raises InstallError: when they are in neither.
    """
    for candidate in (Path(sys.prefix) / "share" / "nitroproxy", Path(__file__).resolve().parent.parent):
        if (candidate / "systemd" / "nitroproxy-host.service").exists():
            return candidate
    raise InstallError("the units are not where the package should have put them; install it anew")


def install_units(source: Path, root: Path, programs: Path) -> Iterator[Placed]:
    """Put every file in place.

    :param source: see `source_directory`.
    :param root: what stands for / .
    :param programs: the directory of `twistd` and `nitroproxy`.
    :raises InstallError: naming the file that could not be read or written.
    """
    manifest = root / _MANIFEST
    try:
        installed = json.loads(manifest.read_text()) if manifest.exists() else {}
        contents = {
            place: (source / name).read_text("utf-8").replace(_PROGRAMS, str(programs)).encode()
            for name, place in _FILES.items()
        }
        for place, content in contents.items():
            yield _place(content, root / place, installed.get(place))
            installed[place] = _digest(content)
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text(json.dumps(installed, indent=2) + "\n")
    except OSError as error:
        raise InstallError(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise InstallError(f"{manifest}: {error}") from error


def _place(content: bytes, path: Path, digest: str | None) -> Placed:
    if not path.exists():
        outcome = "new"
    elif path.read_bytes() == content:
        return Placed(path, "unchanged")
    elif _digest(path.read_bytes()) == digest:
        outcome = "updated"
    else:
        path.with_name(path.name + ".new").write_bytes(content)
        return Placed(path, "edited")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Placed(path, outcome)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
