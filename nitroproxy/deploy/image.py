"""The enclave's image: whole, the one that was measured, for Nitro, and not too large for its memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from nitroproxy.commands.nitro_cli import NitroError
from nitroproxy.deploy.failure import Refused, Status

if TYPE_CHECKING:
    from nitroproxy.config.schema import Settings


def check_image(eif: Path, settings: Settings, *, any_kernel: bool) -> str:
    """Refuse an image that would not start; returns its PCR0.

    :raises Refused: naming what is wrong.
    """
    from nitroproxy.commands.run_enclave import check_image as check

    if not eif.exists():
        emulated = eif.with_name("enclave-emulator.eif")
        why = "; enclave-emulator.eif runs in the emulator only" if emulated.exists() else ""
        raise Refused(
            Status.IMAGE,
            f"{eif}: no such file{why}; build it with Nitro's boot files (docs/first-enclave.md), or name one by --eif",
        )
    try:
        image = check(eif, settings, any_kernel=any_kernel)
    except NitroError as error:
        short = str(error).startswith("enclave.memory_mb")
        raise Refused(Status.RESOURCES if short else Status.IMAGE, str(error)) from error
    return image.measurements.pcr0


def check_measurements(eif: Path, pcr0: str) -> None:
    """Refuse an image other than the one that the artifacts' measurements are of.

    :raises Refused: with both PCR0s.
    """
    path = eif.with_name("measurements.json")
    try:
        wanted = json.loads(path.read_text("utf-8"))["Measurements"]["PCR0"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(Status.IMAGE, f"{path}: cannot be read: {error}") from error
    if wanted != pcr0:
        raise Refused(Status.IMAGE, f"{eif}: its PCR0 is {pcr0}, and measurements.json says {wanted}")


def pcr0_of(eif: Path) -> str | None:
    """The PCR0 of an image; None when there is none, or it cannot be read."""
    from nitroproxy.image.errors import ImageError
    from nitroproxy.image.reader import read_image

    try:
        return read_image(eif).measurements.pcr0 if eif.exists() else None
    except ImageError:
        return None
