"""The memory that the machine has and has left. An enclave has nothing else: its file system is in memory too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from nitroproxy.telemetry.metrics import Source

_MEMINFO: Final = Path("/proc/meminfo")
_STATES: Final = {"MemTotal": "total", "MemAvailable": "available"}
_LINE: Final = re.compile(r"^(MemTotal|MemAvailable): +([0-9]+) kB$", re.MULTILINE)


def machine_memory(read: Callable[[], str] = _MEMINFO.read_text) -> Source:
    """The gauge of the machine's memory, in bytes. Empty where the kernel does not tell, as under ``ProcSubset=pid``.

    :param read: gives what ``/proc/meminfo`` holds (proc_meminfo(5)).
    """

    def collect() -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "nitroproxy_memory_bytes", "Memory of the enclave: all of it, and what is left.", labels=["state"]
        )
        try:
            found = _LINE.findall(read())
        except OSError:
            found = []
        for name, kilobytes in found:
            family.add_metric([_STATES[name]], int(kilobytes) * 1024.0)
        yield family

    return collect
