"""Asks a running gateway for its status document, and puts it into words for a terminal.

`status` is its command line. What the gateway does not say is unknown here, never taken for healthy or for zero.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

#: Seconds that the gateway may take: it answers from what it knows.
_TIMEOUT: Final = 3.0
#: Bytes of the document that are read: many times what it has.
_LONGEST: Final = 4 << 20
_MARKS: Final = {"pass": "ok", "warn": "WARN", "fail": "FAIL"}
_UNKNOWN: Final = "unknown"
#: Failures that are shown.
_MOST_FAILURES: Final = 5


@dataclass(frozen=True)
class Status:
    """What was found.

    :ivar reachable: whether the gateway answered at all; if not, *problem* says why.
    :ivar document: as `nitroproxy.host.status.Status`; empty without an answer.
    """

    url: str
    reachable: bool
    problem: str = ""
    document: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The status of the whole."""
        return str(self.document.get("status", _UNKNOWN if self.reachable else "fail"))

    @property
    def good(self) -> bool:
        """Whether every layer was examined and none fails."""
        return self.reachable and self.status in ("pass", "warn")

    def to_dict(self) -> dict[str, object]:
        """For a machine."""
        found = {"url": self.url, "reachable": self.reachable, "problem": self.problem, "status": self.status}
        return {**self.document, **found}


def look(url: str) -> Status:
    """Ask the gateway, or the health listener, at *url*, which has no slash at its end. Blocks for a few seconds at
    most."""
    try:
        code, body = _get(f"{url}/status.json")
        document = json.loads(body)
        layers = document["layers"]
        if not isinstance(layers, list):
            raise TypeError
    except (OSError, http.client.HTTPException) as error:
        return Status(url, False, f"the gateway does not answer: {_reason(error)}")
    except (ValueError, KeyError, TypeError):
        return Status(url, False, _no_document(url))
    if code != 200:
        return Status(url, False, f"the gateway answers {code}")
    return Status(url, True, document=document)


def _no_document(url: str) -> str:
    """Why there is no document at *url*: a health listener may be without one, and something else may answer."""
    try:
        _, body = _get(f"{url}/health")
        service = json.loads(body)["serviceId"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return "what answers is not the gateway"
    return f"{service} answers, but has no status there (host_proxy.health_status)"


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _get(url: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_TIMEOUT) as answer:
            return 200, str(answer.read(_LONGEST).decode("utf-8"))
    except urllib.error.HTTPError as error:
        return error.code, error.read(_LONGEST).decode("utf-8")


def render(status: Status) -> str:
    """For a person."""
    if not status.reachable:
        return f"{status.url}: {status.problem}"
    document = status.document
    lines = [f"{status.url}: {status.status}"]
    lines += [_layer(layer) for layer in document["layers"]]
    if not document["layers"]:
        lines.append("  no layer has been examined yet: the daemon has just started")
    lines += [_daemon(document, daemon) for daemon in document.get("daemons", [])]
    lines += _room(document)
    for daemon in document.get("daemons", []):
        if daemon.get("reloaded") is False:
            role = daemon.get("role")
            lines.append(
                f"  the {role} daemon did not take its new configuration, the old one is in force: see its log"
            )
    lines += _failures(document)
    return "\n".join(lines)


def _layer(layer: Mapping[str, Any]) -> str:
    status = str(layer.get("status", _UNKNOWN))
    since = _duration(layer.get("seconds", 0.0))
    text = f"  {_MARKS.get(status, status):7}  {layer.get('layer', '?'):17} {since:9}  {layer.get('output', '')}"
    return text.rstrip()


def _daemon(document: Mapping[str, Any], daemon: Mapping[str, Any]) -> str:
    """A daemon's traffic: the gateway's, or the enclave's."""
    role = daemon.get("role")
    hop = next((hop for hop in document.get("hops", []) if hop.get("name") == f"nitroproxy-{role}"), None)
    since = daemon.get("since")
    if not daemon.get("up") or hop is None or since is None:
        return f"  {role}: traffic {_UNKNOWN}, as its metrics could not be had"
    return (
        f"  {role}: up {_duration(max(document.get('time', 0.0) - since, 0.0))}, {hop['requests']:.0f} requests, "
        f"{hop['codes'].get('5xx', 0):.0f} of them 5xx, {hop['under_way']:.0f} under way, "
        f"{_size(hop['received'])} in, {_size(hop['sent'])} out"
    )


def _room(document: Mapping[str, Any]) -> Iterator[str]:
    """What is nearly used up, and the enclave's memory."""
    for room in document.get("room", []):
        what, where, used, most = (room.get(name) for name in ("what", "where", "used", "most"))
        if what == "memory":
            yield f"  {where}: {_size(used)} of {_size(most)} of memory used"
        elif what != "lag" and used > 0.8 * most:
            yield f"  {where}: {used:.0f} of {most:.0f} {what} used"


def _failures(document: Mapping[str, Any]) -> Iterator[str]:
    failures = document.get("failures", [])
    if failures:
        yield "  latest failures:"
    for failure in failures[:_MOST_FAILURES]:
        again = f" ×{failure['count']}" if failure["count"] > 1 else ""
        yield (
            f"    {_duration(failure['seconds'])} ago  {failure['error']}{again}, found by {failure['found_by']}  "
            f"{failure['destination'] or '-'}  {failure['request_id']}"
        ).rstrip()


def _duration(seconds: float) -> str:
    whole = max(int(seconds), 0)
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
