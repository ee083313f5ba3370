"""Writes the sections of an image to files: what an emulator boots, or what a reviewer unpacks."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

from nitroproxy.image.errors import ImageError
from nitroproxy.image.layout import Kind, Section
from nitroproxy.image.reader import Image, read_image

_NAMES: Final = {
    Kind.KERNEL: "kernel",
    Kind.CMDLINE: "cmdline",
    Kind.RAMDISK: "ramdisk-{number}",
    Kind.SIGNATURE: "signature",
    Kind.METADATA: "metadata.json",
}


def extract_image(path: Path, directory: Path) -> Image:
    """Write the sections of the image at *path* to *directory*: ``kernel``, ``cmdline``, ``ramdisk-0``, ``ramdisk-1``
    …, ``metadata.json`` and ``signature``. The directory is made when the image has been checked, or not at all.

    :raises ImageError: the image is damaged, or the directory is there already.
    """
    if os.path.lexists(directory):
        raise ImageError(f"{directory}: it exists already; name a directory that does not")
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    except OSError as error:
        raise ImageError(f"{directory}: {error.strerror}") from error
    try:
        with _Files(temporary) as files:
            image = read_image(path, files.take)
        temporary.chmod(0o755)
        os.rename(temporary, directory)
    except OSError as error:
        raise ImageError(f"{directory}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return image


class _Files(ExitStack):
    """A file for each section, opened when its first piece comes."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._files: dict[int, BinaryIO] = {}
        self._ramdisks = 0

    def take(self, section: Section, piece: bytes) -> None:
        """See `nitroproxy.image.reader.Take`."""
        if section.offset not in self._files:
            name = _NAMES[section.kind].format(number=self._ramdisks)
            self._ramdisks += section.kind is Kind.RAMDISK
            self._files[section.offset] = self.enter_context((self._directory / name).open("wb"))
        self._files[section.offset].write(piece)
