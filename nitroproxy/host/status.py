"""The status document: how the whole stack is and has been for a quarter of an hour, in plain values.

`nitroproxy.host.monitor` makes it, `nitroproxy.host.status_page` shows it and ``/status.json`` is it. What is not known
is None and never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from prometheus_client.core import Metric

from nitroproxy.telemetry.failures import Failure
from nitroproxy.telemetry.samples import Sample, quantile
from nitroproxy.telemetry.states import State

#: The hops of traffic, in the order in which a request passes them.
HOPS: Final = ("nitroproxy-host", "nitroproxy-enclave", "nitroproxy-relay")
#: Those whose last quarter of an hour is kept: what applications use.
SAMPLED: Final = ("nitroproxy-host", "nitroproxy-enclave")
_CODES: Final = ("2xx", "3xx", "4xx", "5xx", "none")
_WORST_FIRST: Final = ("fail", "warn", "unknown", "pass")
#: Failures that are told.
_MOST_FAILURES: Final = 12


class Hop(msgspec.Struct, frozen=True):
    """What a hop has done since its daemon started.

    :ivar codes: requests by their answer: 2xx and so on; none: the client left before.
    :ivar median: seconds within which half of the requests were over; *slow*: 99 of 100.
    :ivar received: bytes of bodies and tunnels from clients; *sent*: to them.
    :ivar refused: connections that were turned away.
    """

    name: str
    requests: float
    codes: dict[str, float]
    under_way: float
    median: float | None
    slow: float | None
    received: float
    sent: float
    refused: float


class Room(msgspec.Struct, frozen=True):
    """What there is only so much of.

    :ivar what: ``connections``, ``descriptors``, ``memory``, ``lag``.
    :ivar where: the hop or role.
    :ivar used: of *most*, in the fullest process.
    """

    what: str
    where: str
    used: float
    most: float


class Daemon(msgspec.Struct, frozen=True):
    """One of the two daemons.

    :ivar up: whether it answered.
    :ivar since: when it started, in seconds since the epoch; None: not known. So are the others.
    :ivar reloaded: whether the last load of its configuration succeeded, in all of its processes.
    :ivar lines_lost: log lines that were lost on its side.
    """

    role: str
    up: bool
    version: str | None
    since: float | None
    reloaded: bool | None
    lines_lost: float | None


class Status(msgspec.Struct, frozen=True):
    """The document.

    :ivar status: of the worst layer.
    :ivar time: when it was made, in seconds since the epoch; *age*: for how many seconds what it says has been known.
    :ivar cid: the enclave's; None: none is known to run.
    :ivar samples: by hop, oldest first, every *interval* seconds; None where there is none.
    :ivar configuration: the keys whose value is not the default, each with its value as JSON and where that comes from.
    """

    status: str
    time: float
    age: float
    machine: str
    cid: int | None
    layers: list[State]
    daemons: list[Daemon]
    interval: float
    samples: dict[str, list[Sample | None]]
    hops: list[Hop]
    failures: list[Failure]
    room: list[Room]
    configuration: list[tuple[str, str, str]]


#: What a sample is: its name, labels and value.
_Row = tuple[Mapping[str, str], float]


class _Counts:
    """Metric families, by the names of their samples."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._rows: dict[str, list[_Row]] = {}
        for family in families:
            for name, labels, value, *_ in family.samples:
                self._rows.setdefault(name, []).append((labels, value))

    def rows(self, name: str, **wanted: str) -> list[_Row]:
        """The samples of that name with these labels."""
        return [
            (labels, value)
            for labels, value in self._rows.get(name, [])
            if all(labels.get(label) == text for label, text in wanted.items())
        ]

    def sum(self, name: str, **wanted: str) -> float:
        """All of them, added up."""
        return sum(value for _, value in self.rows(name, **wanted))

    def buckets(self, name: str, **wanted: str) -> dict[float, float]:
        """A histogram, the processes added up."""
        found: dict[float, float] = {}
        for labels, value in self.rows(f"{name}_bucket", **wanted):
            bound = float(labels["le"])
            found[bound] = found.get(bound, 0.0) + value
        return found


def worst(states: Sequence[State]) -> str:
    """The status of the worst layer; ``unknown`` before any was examined."""
    found = {state.status for state in states}
    return next((status for status in _WORST_FIRST if status in found), "unknown")


def hops_of(families: Sequence[Metric]) -> list[Hop]:
    """What each hop has done; one that no daemon told of is missing."""
    counts = _Counts(families)
    return [_hop(counts, hop) for hop in HOPS if counts.rows("nitroproxy_connections_total", hop=hop)]


def _hop(counts: _Counts, hop: str) -> Hop:
    buckets = counts.buckets("nitroproxy_request_duration_seconds", hop=hop)
    return Hop(
        name=hop,
        requests=counts.sum("nitroproxy_requests_total", hop=hop),
        codes={code: counts.sum("nitroproxy_requests_total", hop=hop, code=code) for code in _CODES},
        under_way=counts.sum("nitroproxy_requests_in_flight", hop=hop),
        median=quantile(buckets, 0.5),
        slow=quantile(buckets, 0.99),
        received=counts.sum("nitroproxy_bytes_total", hop=hop, direction="received"),
        sent=counts.sum("nitroproxy_bytes_total", hop=hop, direction="sent"),
        refused=counts.sum("nitroproxy_connections_refused_total", hop=hop),
    )


def daemons_of(families: Sequence[Metric]) -> list[Daemon]:
    """Both daemons."""
    counts = _Counts(families)
    return [_daemon(counts, role) for role in ("host", "enclave")]


def _daemon(counts: _Counts, role: str) -> Daemon:
    up = counts.sum("nitroproxy_up", role=role) > 0
    versions = sorted({labels["version"] for labels, _ in counts.rows("nitroproxy_build_info", role=role)})
    started = [value for _, value in counts.rows("process_start_time_seconds", role=role)]
    reloads = [value for _, value in counts.rows("nitroproxy_config_last_reload_successful", role=role)]
    names = ("log_lines_dropped_total", "log_lines_not_shipped_total")
    return Daemon(
        role=role,
        up=up,
        version=", ".join(versions) or None,
        # A daemon of several processes is up since the first of them began.
        since=min(started, default=None),
        reloaded=all(reloads) if reloads else None,
        lines_lost=sum(counts.sum(f"nitroproxy_{name}", role=role) for name in names) if up else None,
    )


def room_of(families: Sequence[Metric]) -> list[Room]:
    """What is used of what there is only so much of, in the fullest process of each daemon."""
    counts = _Counts(families)
    room = []
    for hop in HOPS:
        room += _fullest(counts, "connections", hop, "nitroproxy_connections_open", "nitroproxy_connections_limit", hop)
    for role in ("host", "enclave"):
        room += _fullest(counts, "descriptors", role, "process_open_fds", "process_max_fds", None)
    total = counts.rows("nitroproxy_memory_bytes", state="total")
    left = counts.rows("nitroproxy_memory_bytes", state="available")
    if total and left:
        room.append(Room("memory", "enclave", total[0][1] - left[0][1], total[0][1]))
    return room


def _fullest(counts: _Counts, what: str, where: str, used: str, most: str, hop: str | None) -> list[Room]:
    wanted = {"hop": hop} if hop is not None else {"role": where}
    limits = {labels.get("worker", ""): value for labels, value in counts.rows(most, **wanted)}
    pairs = [
        (value, limits[worker])
        for labels, value in counts.rows(used, **wanted)
        if limits.get(worker := labels.get("worker", ""))
    ]
    if not pairs:
        return []
    fullest = max(pairs, key=lambda pair: pair[0] / pair[1])
    return [Room(what, where, *fullest)]


def latest(gateway: Iterable[Failure], told: Sequence[Failure], prefer_told: bool) -> list[Failure]:
    """The latest failures, newest first, of those that the gateway's processes have seen and the enclave's log tells.

    :param prefer_told: the log tells of each request: what another hop found is there with its name, and what the
        gateway has of it, a Proxy-Status token, is left out.
    """
    found: dict[tuple[str, str, str], Failure] = {}
    ours = [one for one in gateway if not (prefer_told and one.found_by in ("nitroproxy-enclave", "nitroproxy-relay"))]
    for failure in (*ours, *told):
        key = failure.error, failure.found_by, failure.destination
        other = found.get(key, failure)
        newer = min(failure, other, key=lambda one: one.seconds)
        count = failure.count if other is failure else failure.count + other.count
        found[key] = msgspec.structs.replace(newer, count=count)
    return sorted(found.values(), key=lambda one: one.seconds)[:_MOST_FAILURES]
