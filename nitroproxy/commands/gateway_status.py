"""Asks a running gateway for its health and metrics, and puts the answers into words for a terminal.

`status` is its command line. What the gateway does not say is unknown here, never taken for healthy or for zero.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

#: Seconds that the gateway may take: it answers for the enclave within one.
_TIMEOUT: Final = 3.0
#: Bytes of a page that are read: far more than both daemons' metrics have.
_LONGEST: Final = 16 << 20
_MARKS: Final = {"pass": "ok", "warn": "WARN", "fail": "FAIL"}
#: The layers that the health document of a working stack has, in the order in which a request passes them.
_LAYERS: Final = ("host", "vsock", "enclave", "egress", "dns", "policy", "tls_verification")
_UNKNOWN: Final = "unknown"
_ROLES: Final = ("host", "enclave")


@dataclass(frozen=True)
class Layer:
    """One layer of the way out.

    :ivar status: ``pass``, ``warn``, ``fail``, or ``unknown`` where the gateway could not ask.
    """

    name: str
    status: str
    output: str


@dataclass(frozen=True)
class Status:
    """What was found.

    :ivar reachable: whether the gateway answered at all; if not, *problem* says why.
    :ivar up_since: when each daemon started, in seconds since the epoch, by role; a role that did not say is not in it.
    :ivar totals: counts since then, by name; those of a role that did not answer are not in it.
    """

    url: str
    reachable: bool
    problem: str = ""
    status: str = "fail"
    layers: Sequence[Layer] = ()
    up_since: Mapping[str, float] = field(default_factory=dict)
    totals: Mapping[str, float] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether nothing fails."""
        return self.reachable and self.status != "fail"

    def to_dict(self) -> dict[str, object]:
        """For a machine."""
        return {
            "url": self.url,
            "reachable": self.reachable,
            "problem": self.problem,
            "status": self.status,
            "layers": {layer.name: {"status": layer.status, "output": layer.output} for layer in self.layers},
            "up_since": dict(self.up_since),
            "totals": dict(self.totals),
        }


def look(url: str) -> Status:
    """Ask the gateway at *url*, which has no slash at its end. Blocks for a few seconds at most."""
    try:
        document: Any = json.loads(_get(f"{url}/health"))
        layers = [
            Layer(name, str(entries[0]["status"]), str(entries[0].get("output", "")))
            for name, entries in document["checks"].items()
        ]
        layers += [Layer(name, _UNKNOWN, "") for name in _LAYERS if name not in document["checks"]]
        status = str(document["status"])
    except (OSError, http.client.HTTPException) as error:
        return Status(url, False, f"the gateway does not answer: {_reason(error)}")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return Status(url, False, "what answers is not the gateway")
    since, totals = _counts(url)
    return Status(url, True, "", status, layers, since, totals)


def _counts(url: str) -> tuple[dict[str, float], dict[str, float]]:
    since: dict[str, float] = {}
    totals: dict[str, float] = {}
    try:
        families = list(text_string_to_metric_families(_get(f"{url}/metrics")))
    except (OSError, http.client.HTTPException, ValueError):
        return since, {}
    for family in families:
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "process_start_time_seconds":
                # A daemon of several processes is up since the first of them began.
                since[labels["role"]] = min(sample.value, since.get(labels["role"], sample.value))
            if labels.get("hop") not in ("nitroproxy-host", "nitroproxy-enclave"):
                continue
            if sample.name in ("nitroproxy_requests_total", "nitroproxy_errors_total", "nitroproxy_connections_open"):
                name = sample.name.removeprefix("nitroproxy_").removesuffix("_total")
                totals[f"{labels['role']}_{name}"] = totals.get(f"{labels['role']}_{name}", 0.0) + sample.value
            elif sample.name == "nitroproxy_bytes_total":
                name = f"{labels['role']}_{labels['direction']}_bytes"
                totals[name] = totals.get(name, 0.0) + sample.value
    return since, totals


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _get(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_TIMEOUT) as answer:
            return str(answer.read(_LONGEST).decode("utf-8"))
    except urllib.error.HTTPError as error:
        return error.read(_LONGEST).decode("utf-8")


def render(status: Status, now: float) -> str:
    """For a person.

    :param now: seconds since the epoch.
    """
    if not status.reachable:
        return f"{status.url}: {status.problem}"
    lines = [f"{status.url}: {status.status}"]
    for layer in status.layers:
        mark = _MARKS.get(layer.status, layer.status)
        lines.append(f"  {mark:7}  {layer.name:17} {layer.output}".rstrip())
    lines += [_traffic(status, role, now) for role in _ROLES]
    return "\n".join(lines)


def _traffic(status: Status, role: str, now: float) -> str:
    since = status.up_since.get(role)
    if since is None:
        return f"  {role}: traffic {_UNKNOWN}, as its metrics could not be had"
    counts = {
        name: int(status.totals.get(f"{role}_{name}", 0))
        for name in ("requests", "errors", "connections_open", "received_bytes", "sent_bytes")
    }
    return (
        f"  {role}: up {_duration(now - since)}, {counts['requests']} requests, {counts['errors']} errors, "
        f"{counts['connections_open']} connections, {_size(counts['received_bytes'])} in, "
        f"{_size(counts['sent_bytes'])} out"
    )


def _duration(seconds: float) -> str:
    whole = max(int(seconds), 0)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
