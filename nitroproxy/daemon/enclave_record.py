"""Which enclave runs: a small file that `nitroproxy run-enclave` writes on the host and the host daemon reads.

With ``enclave.cid: 0`` the hypervisor chooses the CID. `run-enclave` removes the file before it starts an enclave and
when one has ended, and replaces it as a whole (rename), so a reader sees one enclave or none. While the file is missing
the relay serves nobody: a CID that is free may be given to another enclave. Knows the standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

#: The file's name in ``transport.directory``, its mode, and the most bytes of it that are read.
NAME: Final = "enclave.json"
_MODE: Final = 0o644
_MOST_BYTES: Final = 4096
#: The CIDs that an enclave can have.
_LOWEST_CID: Final = 4
_HIGHEST_CID: Final = 4294967294


@dataclass(frozen=True)
class EnclaveRecord:
    """The enclave that runs.

    :ivar enclave_id: as nitro-cli names it.
    :ivar image: the path of the image that it was started from.
    :ivar pcr0: the image's first measurement, in hexadecimal.
    :ivar started: when, in seconds since the epoch.
    """

    cid: int
    enclave_id: str
    image: str
    pcr0: str
    started: float

    def write(self, directory: Path) -> None:
        """Replace the record in *directory*, readable by everyone whatever the umask.

        :raises OSError: when it cannot be written; then the old record is unchanged.
        """
        descriptor, temporary = tempfile.mkstemp(prefix=f".{NAME}.", dir=directory)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps(asdict(self)) + "\n")
                os.fchmod(file.fileno(), _MODE)
            os.replace(temporary, directory / NAME)
        except BaseException:
            os.unlink(temporary)
            raise


def remove_record(directory: Path) -> None:
    """Remove the record; there may be none.

    :raises OSError: when it cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        (directory / NAME).unlink()


def read_record(directory: Path) -> EnclaveRecord | None:
    """The record in *directory*; None when there is none.

    :raises OSError: when it cannot be read.
    :raises ValueError: when it is no record.
    """
    try:
        # Neither a pipe nor a link elsewhere is what run-enclave has written.
        descriptor = os.open(directory / NAME, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        return _parse(file.read(_MOST_BYTES))


def _parse(data: bytes) -> EnclaveRecord:
    try:
        found: Any = json.loads(data)  # Its errors are ValueErrors, those of the encoding too, but for one.
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    cid, started = found.get("cid"), found.get("started")
    if type(cid) is not int or not _LOWEST_CID <= cid <= _HIGHEST_CID:
        raise ValueError("its cid is not that of an enclave")
    if isinstance(started, bool) or not isinstance(started, int | float):
        raise ValueError("it does not say when the enclave was started")
    enclave_id, image, pcr0 = (found.get(name) for name in ("enclave_id", "image", "pcr0"))
    if not (isinstance(enclave_id, str) and isinstance(image, str) and isinstance(pcr0, str)):
        raise ValueError("it does not name the enclave and its image")
    return EnclaveRecord(cid, enclave_id, image, pcr0, started)


class RunningEnclave:
    """The CID of the enclave that runs now. The file is read again only when it has been replaced.

    Called for each connection to or from the enclave, in each process of the host daemon.

    :param directory: ``transport.directory``.
    :ivar problem: why there is no CID, for a person; empty when there is one.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / NAME
        self._seen: tuple[int, ...] = ()
        self._cid: int | None = None
        self.problem = ""

    def __call__(self) -> int | None:
        """The CID; None while no enclave is known to run."""
        try:
            now = os.lstat(self._path)
        except OSError as error:
            self._seen, self._cid = (), None
            missing = "nitroproxy run-enclave (nitroproxy-eif.service) writes it when the enclave runs"
            why = missing if isinstance(error, FileNotFoundError) else error.strerror
            self.problem = f"enclave.cid is 0 and {self._path} cannot be read: {why}"
            return None
        seen = (now.st_dev, now.st_ino, now.st_mtime_ns, now.st_size)
        if seen != self._seen:
            self._seen = seen
            self._read()
        return self._cid

    def _read(self) -> None:
        self._cid, self.problem = None, ""
        try:
            record = read_record(self._directory)
        except (OSError, ValueError) as error:
            self.problem = f"enclave.cid is 0 and {self._path} cannot be used: {error}"
        else:
            if record is None:  # Removed since it was looked at.
                self._seen = ()
                self.problem = f"enclave.cid is 0 and {self._path} has just been removed"
            else:
                self._cid = record.cid
