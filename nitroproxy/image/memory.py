"""How much memory an enclave needs for its image, in MiB as nitro-cli's ``--memory`` counts.

Three rules, of which the largest result holds: nitro-cli refuses less than 4 times the image (error E26); the kernel
unpacks the ramdisk beside the compressed one, and ends with "Initramfs unpacking failed: write error" below twice the
unpacked root and 64 MiB; and what runs needs the root, 64 MiB for the kernel, 45 KiB a connection, the application,
and 48 MiB for the enclave daemon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_MIB: Final = 1 << 20
_EIF_FACTOR: Final = 4
_KERNEL_BYTES: Final = 64 * _MIB
_CONNECTION_BYTES: Final = 45 * 1024
_DAEMON_BYTES: Final = 48 * _MIB


@dataclass(frozen=True)
class Memory:
    """What each rule asks for, in MiB.

    :ivar load: nitro-cli's rule.
    :ivar boot: to unpack the root.
    :ivar run: to serve the connections.
    """

    load: int
    boot: int
    run: int

    @property
    def least(self) -> int:
        """The MiB that the enclave needs."""
        return max(self.load, self.boot, self.run)

    def __str__(self) -> str:
        return f"{self.least} MiB (nitro-cli's rule {self.load}, to boot {self.boot}, to run {self.run})"


def needed(image_bytes: int, root_bytes: int, connections: int, application_mib: int) -> Memory:
    """The memory that an enclave needs.

    :param image_bytes: of the EIF.
    :param root_bytes: of the unpacked ramdisks.
    :param connections: that are open at a time (``limits.connections``).
    :param application_mib: what the application in the enclave uses.
    """
    run = root_bytes + _KERNEL_BYTES + _CONNECTION_BYTES * connections + _DAEMON_BYTES
    return Memory(_mib(_EIF_FACTOR * image_bytes), _mib(2 * root_bytes + _KERNEL_BYTES), _mib(run) + application_mib)


def _mib(size: int) -> int:
    return -(-size // _MIB)
