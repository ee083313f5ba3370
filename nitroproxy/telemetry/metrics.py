"""What the daemons count, as Prometheus metrics.

Counting is a few additions on plain numbers, for some requests at a time, so that it costs a request next to nothing; a
scrape makes metric families of them. Labels are from closed sets (`LABELS`): no host name, path or address ever becomes
one.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure

from nitroproxy.errors import HOPS, Kind
from nitroproxy.proxy.observer import Observer
from nitroproxy.proxy.record import End, Record
from nitroproxy.proxy.upstream import Pool

#: Methods that are a label of their own; any other is "other".
_METHODS: Final = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"CONNECT", b"TCP", b"SOCKS5"}
)
_SECONDS: Final[Sequence[float]] = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    *(0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
_LONG_SECONDS: Final[Sequence[float]] = (0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21600.0)
_BYTES: Final[Sequence[float]] = (256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 16777216.0, 268435456.0)
#: Which rule of the policy refused, by the failure that the client gets.
_DENIALS: Final = {
    Kind.DESTINATION_DENIED: "deny",
    Kind.DESTINATION_NOT_ALLOWED: "allow",
    Kind.ADDRESS_DENIED: "address",
    Kind.PLAINTEXT_DESTINATION: "plaintext",
}
#: Failures for which the guide advises alerts, by the hops that can find them: exported as 0 from start-up, because
#: otherwise the first one would be no increase.
_ALERTED: Final = {
    "nitroproxy-host": (Kind.ENCLAVE_UNAVAILABLE, Kind.CONNECTION_LIMIT_REACHED),
    "nitroproxy-enclave": (Kind.RELAY_UNAVAILABLE, Kind.CONNECTION_LIMIT_REACHED, Kind.TLS_CERTIFICATE_ERROR),
    "nitroproxy-relay": (Kind.CONNECTION_LIMIT_REACHED,),
    "nitroproxy-logs": (Kind.CONNECTION_LIMIT_REACHED,),
    "nitroproxy-health": (Kind.CONNECTION_LIMIT_REACHED,),
    "nitroproxy-ingress": (Kind.ENCLAVE_UNAVAILABLE, Kind.CONNECTION_REFUSED, Kind.CONNECTION_LIMIT_REACHED),
}
#: Requests that are counted together; their records are kept until then.
_BATCH: Final = 64
#: Hops with a listener that only one peer may use.
_GUARDED: Final = frozenset({"nitroproxy-enclave", "nitroproxy-relay", "nitroproxy-logs", "nitroproxy-ingress"})

#: The names of all labels, but for a histogram's ``le``. `role` and `worker` say which process counted; see `Metrics`.
LABELS: Final = frozenset(
    {"role", "worker", "hop", "method", "code", "reason", "direction", "kind", "error", "proxy_status", "found_by"}
    | {"rule", "peer", "errno", "result", "resumed", "pool", "state", "version", "outcome", "layer", "status", "use"}
)

#: The number, among a daemon's processes, of the one that supervises the others.
SUPERVISOR: Final = 0

#: Gives metric families when asked.
Source = Callable[[], Iterable[Metric]]


class Distribution:
    """A histogram on plain numbers.

    :ivar total: the sum of all values.
    """

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, values: Sequence[float]) -> None:
        """Count *values*."""
        bounds, counts = self._bounds, self._counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)

    def into(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Give what was counted to *family*."""
        names = [*(str(bound) for bound in self._bounds), "+Inf"]
        buckets = list(zip(names, accumulate(self._counts), strict=True))
        family.add_metric(labels, buckets, self.total)


class HopMetrics(Observer):
    """Counts what happens on one hop's listeners.

    :param hop: the role's name, which is the label.
    """

    def __init__(self, hop: str) -> None:
        self.hop = hop
        self._accepted = 0
        self._open = 0
        reasons = [Kind.CONNECTION_LIMIT_REACHED, Kind.DRAINING, *([Kind.PEER_DENIED] if hop in _GUARDED else [])]
        self._refused = Counter({kind.public_name: 0 for kind in reasons})
        self._requests: Counter[tuple[bytes, int]] = Counter()
        self._errors = Counter({(kind, hop): 0 for kind in _ALERTED.get(hop, ())})
        self._passed_on: Counter[tuple[str, str]] = Counter()
        self._ends: Counter[tuple[End, bool]] = Counter()
        self._under_way: set[Record] = set()
        #: Requests that are over and not counted yet, with the time when each ended. No tunnels: they keep connections.
        self._uncounted: list[tuple[Record, float]] = []
        self._tunnel_received = self._tunnel_sent = 0
        self._seconds = Distribution(_SECONDS)
        self._tunnel_seconds = Distribution(_LONG_SECONDS)
        self._request_bytes = Distribution(_BYTES)
        self._response_bytes = Distribution(_BYTES)

    def opened(self) -> None:
        """See `Observer`."""
        self._accepted += 1
        self._open += 1

    def closed(self) -> None:
        """See `Observer`."""
        self._open -= 1

    def refused(self, kind: Kind, peer: IAddress) -> None:
        """See `Observer`."""
        self._refused[kind.public_name] += 1

    def began(self, record: Record) -> None:
        """See `Observer`."""
        self._under_way.add(record)

    def ended(self, record: Record, now: float) -> None:
        """See `Observer`."""
        self._under_way.discard(record)
        if record.sides is not None:
            self._count_tunnel(record, now)
            return
        self._uncounted.append((record, now))
        if len(self._uncounted) >= _BATCH:
            self._count_requests()

    def _count_requests(self) -> None:
        """Count what is not counted yet."""
        batch, self._uncounted = self._uncounted, []
        records = [record for record, _ in batch]
        self._count_ends(records, tunnels=False)
        self._seconds.add([now - record.started for record, now in batch])
        self._request_bytes.add([record.received for record in records])
        self._response_bytes.add([record.sent for record in records])

    def _count_tunnel(self, record: Record, now: float) -> None:
        self._count_ends([record], tunnels=True)
        self._tunnel_seconds.add([now - record.started])
        self._tunnel_received += record.received
        self._tunnel_sent += record.sent

    def _count_ends(self, records: Sequence[Record], *, tunnels: bool) -> None:
        # A client may make methods up; of statuses there are a few hundred, which are grouped at a scrape.
        self._requests.update(
            (record.method if record.method in _METHODS else b"other", record.status) for record in records
        )
        self._ends.update((record.ended_by, tunnels) for record in records)
        for record in records:
            if record.error is not None:
                self._errors[record.error, _hop_of(record.found_by)] += 1
            elif record.passed_on is not None:
                found_by, token = record.passed_on
                self._passed_on[_hop_of(found_by), token] += 1

    def collect(self) -> Iterator[Metric]:
        """The families."""
        self._count_requests()
        hop = self.hop
        yield _counter("connections", "Connections accepted.", ["hop"], [([hop], self._accepted)])
        yield _gauge("connections_open", "Connections that are open.", ["hop"], [([hop], self._open)])
        refused = [([hop, reason], count) for reason, count in self._refused.items()]
        yield _counter("connections_refused", "Connections turned away.", ["hop", "reason"], refused)
        yield from self._over()
        under_way = [([hop], len(self._under_way))]
        yield _gauge("requests_in_flight", "Requests and tunnels under way.", ["hop"], under_way)
        yield from self._distributions()
        yield self._moved()
        errors = [
            ([hop, error.public_name, error.proxy_status, found_by], count)
            for (error, found_by), count in self._errors.items()
        ]
        errors += [([hop, "passed_on", token, found_by], count) for (found_by, token), count in self._passed_on.items()]
        labels = ["hop", "error", "proxy_status", "found_by"]
        yield _counter("errors", "Failures that clients got, and the hop that found out.", labels, errors)
        rows = [([hop, rule], self._errors[denial, hop]) for denial, rule in _DENIALS.items()]
        yield _counter("policy_denials", "Requests that this hop's policy refused.", ["hop", "rule"], rows)

    def _over(self) -> Iterator[Metric]:
        """Requests and tunnels that are over."""
        hop = self.hop
        grouped: Counter[tuple[str, str]] = Counter()
        for (method, status), count in self._requests.items():
            grouped[method.decode("ascii"), f"{status // 100}xx" if status else "none"] += count
        requests = [([hop, name, code], count) for (name, code), count in grouped.items()]
        yield _counter(
            "requests", "Requests that are over, none: the client left.", ["hop", "method", "code"], requests
        )
        ends = [
            ([hop, "tunnel" if tunnel else "request", end.value], count) for (end, tunnel), count in self._ends.items()
        ]
        yield _counter("ends", "What ended requests and tunnels.", ["hop", "kind", "reason"], ends)

    def _moved(self) -> Metric:
        """Bytes of bodies and tunnels, those under way included."""
        hop = self.hop
        moved = Counter(
            {
                ("received", "request"): int(self._request_bytes.total),
                ("sent", "request"): int(self._response_bytes.total),
                ("received", "tunnel"): self._tunnel_received,
                ("sent", "tunnel"): self._tunnel_sent,
            }
        )
        for record in self._under_way:
            kind = "tunnel" if record.sides is not None else "request"
            received, sent = record.moved
            moved["received", kind] += received
            moved["sent", kind] += sent
        both = [([hop, direction, kind], count) for (direction, kind), count in moved.items()]
        return _counter("bytes", "Bytes of bodies and tunnels, as clients sent and received them.", _DIRECTIONS, both)

    def _distributions(self) -> Iterator[Metric]:
        for name, text, distribution in (
            ("request_duration_seconds", "From a request's head to the end of its response.", self._seconds),
            ("tunnel_duration_seconds", "From a CONNECT or upgrade to the tunnel's end.", self._tunnel_seconds),
            ("request_body_bytes", "Sizes of request bodies.", self._request_bytes),
            ("response_body_bytes", "Sizes of response bodies.", self._response_bytes),
        ):
            family = HistogramMetricFamily(f"nitroproxy_{name}", text, labels=["hop"])
            distribution.into(family, [self.hop])
            yield family


def _hop_of(name: str) -> str:
    return name if name in HOPS else "other"


_DIRECTIONS: Final = ["hop", "direction", "kind"]


class ConnectMetrics:
    """Counts connections to one other hop.

    :param peer: ``enclave``, ``relay`` or ``logs``.
    """

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._made = 0
        self._failed: Counter[str] = Counter()

    def tried(self, failure: Failure | None) -> None:
        """Count an attempt to connect."""
        if failure is None:
            self._made += 1
            return
        number = getattr(failure.value, "osError", None) or getattr(failure.value, "errno", None)
        self._failed[errno.errorcode.get(number, "other") if isinstance(number, int) else "other"] += 1

    def collect(self) -> Iterator[Metric]:
        """The families."""
        made = [([self._peer], self._made)]
        yield _counter("hop_connects", "Connections made to another hop.", ["peer"], made)
        failed = [([self._peer, name], count) for name, count in self._failed.items()]
        yield _counter("hop_connect_failures", "Connections that could not be made.", ["peer", "errno"], failed)


class TLSMetrics:
    """Counts handshakes with destinations."""

    def __init__(self) -> None:
        self._handshakes: Counter[tuple[str, str]] = Counter()

    def shook_hands(self, error: Kind | None, resumed: bool) -> None:
        """Count a handshake that is over.

        :param resumed: it took up an earlier session.
        """
        self._handshakes["ok" if error is None else error.public_name, str(resumed).lower()] += 1

    def collect(self) -> Iterator[Metric]:
        """The families."""
        rows = [([result, resumed], count) for (result, resumed), count in self._handshakes.items()]
        yield _counter("tls_handshakes", "TLS handshakes with destinations.", ["result", "resumed"], rows)


def pool_metrics(name: str, current: Callable[[], Pool]) -> Source:
    """The connections of the pool that leads to *name*."""

    def collect() -> Iterator[Metric]:
        pool = current()
        rows = [([name, "idle"], pool.idle), ([name, "in_use"], pool.open - pool.idle)]
        yield _gauge("pool_connections", "Connections kept to the next hop.", ["pool", "state"], rows)

    return collect


def limit_metrics(limits: Mapping[str, Callable[[], int]]) -> Source:
    """The connections that each hop's listeners serve at a time.

    :param limits: gives the number, by hop.
    """
    return lambda: [_gauge("connections_limit", "Connections that are served at a time.", ["hop"], _rows(limits))]


def _rows(limits: Mapping[str, Callable[[], int]]) -> _Rows:
    return [([hop], limit()) for hop, limit in limits.items()]


def process_metrics() -> Source:
    """The process's CPU time, memory and descriptors, by the names that Prometheus clients use."""
    return ProcessCollector(registry=CollectorRegistry()).collect


def one_counter(name: str, text: str, value: Callable[[], float]) -> Source:
    """A counter without labels of its own."""
    return lambda: [_counter(name, text, [], [([], value())])]


class Metrics:
    """All that one process of a daemon counts.

    :param role: ``host`` or ``enclave``: a label on every sample.
    :param worker: which of the daemon's processes this is, by number, or `SUPERVISOR`: a label on every sample, so that
        the series of several processes stand beside each other and the reader adds them up; None: the daemon is one
        process and there is no such label.
    :ivar role: the role.
    :ivar sources: asked at each scrape; the composition root adds what it builds.
    """

    def __init__(self, role: str, version: str, worker: int | None = None) -> None:
        self.role = role
        self._labels = {"role": role}
        if worker is not None:
            self._labels["worker"] = str(worker) if worker else "supervisor"
        self._version = version
        self.sources: list[Source] = [self._build, process_metrics()]

    def _build(self) -> Iterator[Metric]:
        yield _gauge("build_info", "The version that runs.", ["version"], [([self._version], 1)])

    def collect(self) -> list[Metric]:
        """Every family, each sample with the process's labels."""
        return merge(labelled(family, self._labels) for source in self.sources for family in source())


def labelled(family: Metric, labels: Mapping[str, str]) -> Metric:
    """*family* with *labels* on every sample that does not have them."""
    same = Metric(family.name, family.documentation, family.type, family.unit)
    same.samples = [sample._replace(labels={**labels, **sample.labels}) for sample in family.samples]
    return same


def merge(families: Iterable[Metric]) -> list[Metric]:
    """Families of one name made one; of two types the first one's samples stay."""
    merged: dict[str, Metric] = {}
    for family in families:
        whole = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type, family.unit))
        if whole.type == family.type:
            whole.samples += family.samples
    return list(merged.values())


_Rows = Iterable[tuple[Sequence[str], float]]


def _counter(name: str, text: str, labels: Sequence[str], rows: _Rows) -> Metric:
    family = CounterMetricFamily(f"nitroproxy_{name}", text, labels=labels)
    for values, count in rows:
        family.add_metric(values, count)
    return family


def _gauge(name: str, text: str, labels: Sequence[str], rows: _Rows) -> Metric:
    family = GaugeMetricFamily(f"nitroproxy_{name}", text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family
