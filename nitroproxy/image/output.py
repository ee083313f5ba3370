"""Output files: whole under their name, or not there at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from nitroproxy.image.errors import ImageError

_MODE: Final = 0o644


@contextmanager
def replacing(path: Path, mode: int = _MODE) -> Iterator[IO[bytes]]:
    """A new file that takes the name *path* when the block ends without an exception; until then the old one stays.

    :param mode: the file's permissions, whatever the umask.
    :raises ImageError: it cannot be written.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error
    try:
        with open(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError):
            raise ImageError(f"{path}: {error.strerror}") from error
        raise
