"""`nitroproxy install-units`: puts units, configuration and the system user in place. A file that has been edited is
never overwritten: the new one is put beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nitroproxy.commands.arguments import Subparsers, complain

#: The directories of the programs and of the distributed files, as the distributed units name them.
_PROGRAMS: Final = "/opt/nitroproxy/bin"
_SHARE: Final = "/opt/nitroproxy/share/nitroproxy"
#: The digests of the installed files: a file that differs from its digest has been edited.
_MANIFEST: Final = "var/lib/nitroproxy/installed.json"
#: The distributed files, and where each is installed.
_FILES: Final = {
    "systemd/nitroproxy-host.service": "etc/systemd/system/nitroproxy-host.service",
    "systemd/nitroproxy-host.socket": "etc/systemd/system/nitroproxy-host.socket",
    "systemd/nitroproxy-ingress.socket": "etc/systemd/system/nitroproxy-ingress.socket",
    "systemd/nitroproxy-enclave.service": "etc/systemd/system/nitroproxy-enclave.service",
    "systemd/nitroproxy-eif.service": "etc/systemd/system/nitroproxy-eif.service",
    "systemd/nitroproxy.sysusers": "etc/sysusers.d/nitroproxy.conf",
    "etc/config.json": "etc/nitroproxy/config.json",
    "etc/nitroproxy.env": "etc/nitroproxy/nitroproxy.env",
}
#: Modes, independent of the umask: the services' users read the configuration, systemd itself the environment.
_DIRECTORY_MODE: Final = 0o755
_MODE: Final = 0o644
_MODES: Final = {"etc/nitroproxy/nitroproxy.env": 0o640}


class InstallError(Exception):
    """A file could not be put in place; the message names it."""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``install-units`` to the command line."""
    parser = subparsers.add_parser(
        "install-units",
        help="install systemd units, configuration and the system user",
        description="Put the systemd units, the configuration and the system user's definition in place. An edited "
        "file is left alone; the new one is written beside it, with .new added to its name.",
    )
    parser.add_argument(
        "--root",
        metavar="DIRECTORY",
        type=Path,
        default=Path("/"),
        help="install below this directory, such as the root of an image that is being built (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Install; the exit status."""
    try:
        for placed in install_units(source_directory(), arguments.root, Path(sys.executable).parent):
            note = f"; edited, left alone: the new one is {placed.path}.new" if placed.outcome == "edited" else ""
            print(f"{placed.outcome:9}  {placed.path}{note}")
        _write_plugin_cache()
    except InstallError as error:
        return complain(str(error))
    print("next: systemd-sysusers; systemctl daemon-reload; systemctl enable --now nitroproxy-host")
    return 0


@dataclass(frozen=True)
class Placed:
    """The outcome for one file.

    :ivar outcome: ``new``, ``unchanged``, ``updated``, or ``edited``: it was left alone, and the new one is beside it.
    """

    path: Path
    outcome: str


def _write_plugin_cache() -> None:
    """Have Twisted write its list of plugins (dropin.cache) now, where it is missing or stale: it would try at each
    start of a daemon, whose sandbox or read-only root does not let it.
    """
    import twisted.plugins
    from twisted.plugin import getCache

    getCache(twisted.plugins)


def source_directory() -> Path:
    """The directory of the distributed files: an installed package's data, or the source tree.

    :raises InstallError: when they are in neither.
    """
    for candidate in (Path(sys.prefix) / "share" / "nitroproxy", Path(__file__).resolve().parents[2]):
        if (candidate / "systemd" / "nitroproxy-host.service").exists():
            return candidate
    raise InstallError("the package's unit files are missing; install nitroproxy again")


def install_units(source: Path, root: Path, programs: Path) -> Iterator[Placed]:
    """Put every file in place.

    :param source: see `source_directory`.
    :param root: the directory to take for / .
    :param programs: the directory of `twistd` and `nitroproxy`.
    :raises InstallError: naming the file that could not be read or written.
    """
    manifest = root / _MANIFEST
    installed = _installed(manifest)
    try:
        contents = {
            place: text.replace(_PROGRAMS, str(programs)).replace(_SHARE, str(source)).encode()
            for place, text in ((place, (source / name).read_text("utf-8")) for name, place in _FILES.items())
        }
        for place, content in contents.items():
            placed = _place(content, root / place, _MODES.get(place, _MODE), installed.get(place))
            # After each file, so that the manifest of an interrupted installation is right.
            if installed.get(place) != _digest(content):
                installed[place] = _digest(content)
                _write((json.dumps(installed, indent=2) + "\n").encode(), manifest, _MODE)
            yield placed
    except OSError as error:
        raise InstallError(f"{error.filename}: {error.strerror}") from error


def _installed(manifest: Path) -> dict[str, str]:
    try:
        installed = json.loads(manifest.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InstallError(f"{manifest}: {error.strerror}") from error
    except ValueError:
        installed = None
    if not isinstance(installed, dict):
        raise InstallError(f"{manifest}: is damaged; remove it, and files of other versions will count as edited")
    return installed


def _place(content: bytes, path: Path, mode: int, digest: str | None) -> Placed:
    if not path.exists():
        outcome = "new"
    elif path.read_bytes() == content:
        return Placed(path, "unchanged")
    elif _digest(path.read_bytes()) == digest:
        outcome = "updated"
    else:
        _write(content, path.with_name(path.name + ".new"), mode)
        return Placed(path, "edited")
    _write(content, path, mode)
    return Placed(path, outcome)


def _write(content: bytes, path: Path, mode: int) -> None:
    """Replace *path* as a whole: a reader, or a crash, sees the old file or the new one."""
    _make_directory(path.parent)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _make_directory(path: Path) -> None:
    if not path.exists():
        _make_directory(path.parent)
        path.mkdir()
        path.chmod(_DIRECTORY_MODE)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
