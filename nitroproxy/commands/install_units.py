"""`nitroproxy install-units`: puts units, configuration and the system user in place, or removes them. A file that has
been edited is never overwritten: the new one is put beside it.
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
#: Where the configuration is installed.
CONFIG: Final = "etc/nitroproxy/config.json"
#: The distributed files, and where each is installed.
_FILES: Final = {
    "systemd/nitroproxy-host.service": "etc/systemd/system/nitroproxy-host.service",
    "systemd/nitroproxy-host.socket": "etc/systemd/system/nitroproxy-host.socket",
    "systemd/nitroproxy-ingress.socket": "etc/systemd/system/nitroproxy-ingress.socket",
    "systemd/nitroproxy-enclave.service": "etc/systemd/system/nitroproxy-enclave.service",
    "systemd/nitroproxy-eif.service": "etc/systemd/system/nitroproxy-eif.service",
    "systemd/nitroproxy-credentials.service": "etc/systemd/system/nitroproxy-credentials.service",
    "systemd/nitroproxy.sysusers": "etc/sysusers.d/nitroproxy.conf",
    "etc/config.json": CONFIG,
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
        "file is left alone; the new one is written beside it, with .new added to its name. With --remove, remove what "
        "was put in place.",
    )
    parser.add_argument(
        "--root",
        metavar="DIRECTORY",
        type=Path,
        default=Path("/"),
        help="install below this directory, such as the root of an image that is being built (default: %(default)s)",
    )
    parser.add_argument(
        "--prefix",
        metavar="DIRECTORY",
        type=Path,
        default=Path(sys.executable).parent.parent,
        help="the environment that the units start, or a link to it (default: this one, %(default)s)",
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="install this configuration instead of the distributed one"
    )
    parser.add_argument("--remove", action="store_true", help="remove what was put in place; edited files stay")
    parser.add_argument("--purge", action="store_true", help="with --remove: remove edited files, too")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Install, or remove; the exit status."""
    if arguments.purge and not arguments.remove:
        return complain("--purge is for --remove")
    try:
        if arguments.remove:
            for placed in remove_units(arguments.root, purge=arguments.purge):
                print(f"{placed.outcome:9}  {placed.path}{'; left alone' if placed.outcome == 'edited' else ''}")
            return 0
        for placed in install_units(source_directory(), arguments.root, arguments.prefix, arguments.config):
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

    :ivar outcome: ``new``, ``unchanged``, ``updated``, ``removed``, or ``edited``: it was left alone, and a new one is
        beside it.
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
    for candidate in (_installed_source(), Path(__file__).resolve().parents[2]):
        if (candidate / "systemd" / "nitroproxy-host.service").exists():
            return candidate
    raise InstallError("the package's unit files are missing; install nitroproxy again")


def _installed_source() -> Path:
    return Path(sys.prefix) / "share" / "nitroproxy"


def install_units(source: Path, root: Path, prefix: Path, config: Path | None = None) -> Iterator[Placed]:
    """Put every file in place.

    :param source: see `source_directory`.
    :param root: the directory to take for / .
    :param prefix: the environment that the units name.
    :param config: the configuration; None: the distributed one.
    :raises InstallError: naming the file that could not be read or written.
    """
    manifest = root / _MANIFEST
    installed = _installed(manifest)
    try:
        for place, content in _contents(source, prefix, config).items():
            placed = _place(content, root / place, _MODES.get(place, _MODE), installed.get(place))
            # After each file, so that the manifest of an interrupted installation is right.
            if installed.get(place) != _digest(content):
                installed[place] = _digest(content)
                _write((json.dumps(installed, indent=2) + "\n").encode(), manifest, _MODE)
            yield placed
    except OSError as error:
        raise InstallError(f"{error.filename}: {error.strerror}") from error


def _contents(source: Path, prefix: Path, config: Path | None) -> dict[str, bytes]:
    contents = {}
    for name, place in _FILES.items():
        text = (source / name).read_text("utf-8")
        # An installed package's documents are found below the link to its environment, too.
        share = prefix / "share" / "nitroproxy" if source == _installed_source() else source
        contents[place] = text.replace(_PROGRAMS, str(prefix / "bin")).replace(_SHARE, str(share)).encode()
    if config is not None:
        contents[CONFIG] = config.read_bytes()
    return contents


def remove_units(root: Path, *, purge: bool) -> Iterator[Placed]:
    """Remove every file that was put in place, and directories that are empty then.

    :param purge: remove edited files, too.
    :raises InstallError: naming the file that could not be removed.
    """
    manifest = root / _MANIFEST
    installed = _installed(manifest)
    try:
        for place, digest in installed.items():
            path = root / place
            path.with_name(path.name + ".new").unlink(missing_ok=True)
            if not path.exists():
                continue
            if not purge and _digest(path.read_bytes()) != digest:
                yield Placed(path, "edited")
                continue
            path.unlink()
            yield Placed(path, "removed")
        manifest.unlink(missing_ok=True)
        for directory in {path.parent for path in (manifest, *(root / place for place in installed))}:
            if directory.is_dir() and directory.name == "nitroproxy" and not any(directory.iterdir()):
                directory.rmdir()
    except OSError as error:
        raise InstallError(f"{error.filename}: {error.strerror}") from error


def installed_files(root: Path) -> list[Path]:
    """Every file that `install_units` may write below *root*."""
    paths = [root / place for place in _FILES.values()]
    return [root / _MANIFEST, *paths, *(path.with_name(path.name + ".new") for path in paths)]


def is_edited(root: Path, place: str) -> bool:
    """Whether the file is there and has been changed since it was installed, or was never installed.

    :param place: as in the manifest, such as `CONFIG`.
    :raises InstallError: when the manifest or the file cannot be read.
    """
    path = root / place
    try:
        return path.exists() and _digest(path.read_bytes()) != _installed(root / _MANIFEST).get(place)
    except OSError as error:
        raise InstallError(f"{path}: {error.strerror}") from error


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
