"""The hypervisor's clock, a PTP device (ptp_kvm): the one source of time in an enclave that the host cannot set."""

from __future__ import annotations

import os
import time
from typing import Final

DEVICE: Final = "/dev/ptp0"


def read_ptp(path: str) -> int:
    """The time of the PTP clock at *path*, in nanoseconds since the epoch.

    :raises OSError: when there is none, or it may not be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return time.clock_gettime_ns((~descriptor << 3) | 3)  # FD_TO_CLOCKID; clock_getres(2), "Dynamic clocks"
    finally:
        os.close(descriptor)
