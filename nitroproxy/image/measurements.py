"""Platform configuration registers (PCRs) of an image: what the Nitro Security Module attests about it.

PCR0 covers kernel, command line and all ramdisks; PCR1 kernel, command line and the first ramdisk; PCR2 the other
ramdisks; PCR8 the signing certificate. Each is SHA-384 over 48 zero bytes and the SHA-384 of the data, which is
concatenated in the file's order. Metadata and signature are not measured.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from nitroproxy.image.layout import Kind

_ZEROS: Final = bytes(hashlib.sha384().digest_size)


def extend(digest: bytes) -> str:
    """A register that held zeros and was extended once with *digest*, in hexadecimal."""
    return hashlib.sha384(_ZEROS + digest).hexdigest()


@dataclass(frozen=True)
class Measurements:
    """The registers in hexadecimal; *pcr8* is None for an image without a signature."""

    pcr0: str
    pcr1: str
    pcr2: str
    pcr8: str | None = None

    def to_dict(self) -> dict[str, str]:
        """As nitro-cli prints them under ``Measurements``. Never compare HashAlgorithm: its text varies by tool."""
        found = {"HashAlgorithm": "Sha384 { ... }", "PCR0": self.pcr0, "PCR1": self.pcr1, "PCR2": self.pcr2}
        return found if self.pcr8 is None else {**found, "PCR8": self.pcr8}


class Meter:
    """Measures the sections of one image, given in the file's order and in pieces of any size."""

    def __init__(self) -> None:
        self._registers = [hashlib.sha384() for _ in range(3)]
        self._ramdisks = 0

    def begin(self, kind: Kind) -> None:
        """A section starts."""
        if kind is Kind.RAMDISK:
            self._ramdisks += 1

    def update(self, kind: Kind, piece: bytes) -> None:
        """The next *piece* of the section that `begin` announced."""
        image, boot, application = self._registers
        if kind in (Kind.KERNEL, Kind.CMDLINE):
            registers = (image, boot)
        elif kind is Kind.RAMDISK:
            registers = (image, boot) if self._ramdisks == 1 else (image, application)
        else:
            return
        for register in registers:
            register.update(piece)

    def finish(self, certificate: bytes | None = None) -> Measurements:
        """The registers.

        :param certificate: the signing certificate in DER.
        """
        pcr0, pcr1, pcr2 = (extend(register.digest()) for register in self._registers)
        pcr8 = None if certificate is None else extend(hashlib.sha384(certificate).digest())
        return Measurements(pcr0, pcr1, pcr2, pcr8)
