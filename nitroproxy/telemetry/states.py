"""Since when each layer has been as it is, and how it was before: a memory of examinations, and the gauge made of it.

Knows nothing of how the layers are examined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client.core import GaugeMetricFamily, Metric

from nitroproxy.telemetry.health import Check, Status

#: The layers that a working stack has, in the order in which a request passes them.
LAYERS: Final = ("host", "vsock", "enclave", "egress", "dns", "policy", "tls_verification")

Known = Status | Literal["unknown"]
_KNOWN: Final[Sequence[Known]] = ("pass", "warn", "fail", "unknown")


@dataclass(frozen=True, slots=True)
class State:
    """How a layer is.

    :ivar status: ``unknown`` where it could not be examined.
    :ivar output: why it is not ``pass``, or what it was seen to be.
    :ivar seconds: for how long its status has been that, as far as is known.
    :ivar before: the status that it had before; empty if there was none.
    :ivar before_seconds: for how long it had been that one.
    """

    layer: str
    status: Known
    output: str
    seconds: float
    before: str = ""
    before_seconds: float = 0.0


@dataclass(slots=True)
class _Noted:
    status: Known
    output: str
    since: float
    before: str = ""
    before_seconds: float = 0.0


class States:
    """The memory.

    :param seconds: gives the time of a monotonic clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._noted: dict[str, _Noted] = {}

    def note(self, checks: Mapping[str, Check]) -> None:
        """An examination is over. What it says nothing of, though it or an earlier one should, is unknown."""
        now = self._seconds()
        for layer in {**dict.fromkeys(LAYERS), **dict.fromkeys(self._noted), **dict.fromkeys(checks)}:
            check = checks.get(layer)
            status: Known = check.status if check is not None else "unknown"
            output = check.output if check is not None else ""
            noted = self._noted.get(layer)
            if noted is None:
                self._noted[layer] = _Noted(status, output, now)
            else:
                if noted.status != status:
                    noted.before, noted.before_seconds = noted.status, now - noted.since
                    noted.status, noted.since = status, now
                noted.output = output

    def tell(self) -> list[State]:
        """How each layer is; empty before the first examination."""
        now = self._seconds()
        return [
            State(layer, noted.status, noted.output, now - noted.since, noted.before, noted.before_seconds)
            for layer, noted in self._noted.items()
        ]

    def collect(self) -> Iterator[Metric]:
        """The gauge: for each layer 1 at its status and 0 at the others, so that each series lasts."""
        family = GaugeMetricFamily(
            "nitroproxy_health", "Health of each layer, as last examined: 1 at its status.", labels=["layer", "status"]
        )
        for layer, noted in self._noted.items():
            for status in _KNOWN:
                family.add_metric([layer, status], float(noted.status == status))
        yield family
