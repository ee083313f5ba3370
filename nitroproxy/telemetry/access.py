"""The access log: one event for each exchange, when it is over."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from nitroproxy.errors import Kind
from nitroproxy.proxy.observer import Observer
from nitroproxy.proxy.record import End, Record
from nitroproxy.telemetry.logs import EventLog

_PHASES: Final = ("connect", "answer")
#: Refused connections that are logged in a second, for each reason: there may be thousands. The metrics count them all.
_REFUSALS: Final = 10
#: Characters of a failure's detail in the text; the field has all of it (`errors.DETAIL_BYTES`).
_LONGEST_DETAIL: Final = 300
#: Ends about which ``error`` says all, or about which there is nothing to say.
_NAMED_BY_ERROR: Final = frozenset({End.COMPLETE, End.FAILED, End.CLIENT_GONE})


class _Refusals:
    """Refused connections of one reason: when the second began that is being counted, how many lines it has, and how
    many connections have none."""

    def __init__(self) -> None:
        self.since = -math.inf
        self.logged = 0
        self.left_out = 0


class AccessLog(Observer):
    """Logs what a listener did. Never a path, query, field or body.

    :param hop: the role's name.
    :param log: takes the events directly: `twisted.logger` costs too much for an event a request.
    :param seconds: gives the time.
    """

    def __init__(self, hop: str, log: EventLog, seconds: Callable[[], float]) -> None:
        self._hop = hop
        self._log = log
        self._seconds = seconds
        self._refusals: dict[Kind, _Refusals] = {}

    def refused(self, kind: Kind, peer: IAddress) -> None:
        """Log a connection that was refused, or count it for the next line about one."""
        refusals = self._refusals.setdefault(kind, _Refusals())
        now = self._seconds()
        if now - refusals.since >= 1.0:
            refusals.since, refusals.logged = now, 0
        if refusals.logged >= _REFUSALS:
            refusals.left_out += 1
            return
        refusals.logged += 1
        shown, reason = _shown(peer), kind.public_name
        fields: dict[str, Any] = {"hop": self._hop, "peer": shown, "reason": reason}
        text = f"{self._hop}: turned a connection from {shown} away: {reason}"
        if refusals.left_out:
            text += f" (and {refusals.left_out} more since the line before)"
            fields["left_out"], refusals.left_out = refusals.left_out, 0
        self._log.emit("warn", "connection_refused", text, fields)

    def switched(self, record: Record) -> None:
        """Log that a tunnel was opened: it may last, and its access event comes only when it ends."""
        fields = {
            "hop": self._hop,
            "request_id": record.request_id.decode("ascii"),
            "method": record.method.decode("ascii"),
            "host": record.host,
            "port": record.port,
            "peer": _shown(record.peer),
        }
        text = f"{self._hop} {fields['method']} {record.host}:{record.port} opened id={fields['request_id']}"
        self._log.emit("info", "tunnel", text, fields)

    def ended(self, record: Record, now: float) -> None:
        """Log it: a failure on the way as a warning, a page of the proxy's own at the level debug.

        ``end`` says what ended it (`End`); the text repeats that where it is neither an error nor the usual end.
        """
        seconds = now - record.started
        method = record.method.decode("ascii", "replace") or "-"
        where = f" {record.host}:{record.port}" if record.host else ""
        end = record.ended_by
        outcome = record.error.public_name if record.error is not None else "client_gone" if record.client_gone else ""
        shown = outcome if end in _NAMED_BY_ERROR else end.value
        fields = self._fields(record, method, seconds, outcome)
        text = (
            f"{self._hop} {method}{where} {record.status or '-'}{' ' + shown if shown else ''} "
            f"{seconds:.3f}s{_phases(fields)} in={record.received} out={record.sent} id={fields['request_id']}"
            f"{_rest(fields)}"
        )
        failed_here = record.error is not None and record.error.status >= 500
        if failed_here or (record.passed_on is not None and record.status >= 500):
            level = "warn"
        else:
            level = "info" if record.host or record.error is not None else "debug"
        self._log.emit(level, "access", text, fields)

    def _fields(self, record: Record, method: str, seconds: float, outcome: str) -> dict[str, Any]:
        """The event's fields."""
        fields: dict[str, Any] = {
            "hop": self._hop,
            "request_id": record.request_id.decode("ascii"),
            "method": method,
            "host": record.host,
            "port": record.port,
            "status": record.status,
            "received": record.received,
            "sent": record.sent,
            "seconds": round(seconds, 6),
            "connect_seconds": _phase(record.started, record.connected),
            "answer_seconds": _phase(record.started, record.answered),
            "peer": _shown(record.peer),
            "tunnel": record.sides is not None,
            "end": record.ended_by.value,
        }
        if outcome:
            fields["error"] = outcome
        if record.error is not None:
            fields["detail"] = record.detail
            fields["found_by"] = record.found_by
        elif record.passed_on is not None:
            fields["found_by"], fields["proxy_status"] = record.passed_on
        if record.opened_by not in (b"", record.request_id):
            fields["opened_by"] = record.opened_by.decode("ascii")
        if record.traceparent:
            fields["traceparent"] = record.traceparent.decode("ascii")
        return fields


def _shown(peer: IAddress | None) -> str:
    """An address as ``host:port``, or by its own text; a UNIX socket's client has no address, so it is ``unix``."""
    if isinstance(peer, IPv4Address | IPv6Address):
        return f"[{peer.host}]:{peer.port}" if isinstance(peer, IPv6Address) else f"{peer.host}:{peer.port}"
    return "unix" if isinstance(peer, UNIXAddress) else str(peer)


def _phases(fields: Mapping[str, Any]) -> str:
    """When there was a connection and when an answer, for the text; empty for what was never reached."""
    reached = [f"{name} {fields[f'{name}_seconds']:.3f}s" for name in _PHASES if fields[f"{name}_seconds"] is not None]
    return f" ({', '.join(reached)})" if reached else ""


def _rest(fields: Mapping[str, Any]) -> str:
    """The text's optional parts: which request opened the connection, which hop found what failure."""
    opened = f" opened_by={fields['opened_by']}" if "opened_by" in fields else ""
    if "found_by" not in fields:
        return opened
    why = fields.get("detail") or fields.get("proxy_status") or ""
    return f"{opened} found_by={fields['found_by']}: {why[:_LONGEST_DETAIL]}"


def _phase(started: float, reached: float) -> float | None:
    """Seconds from the start; None when that was never reached."""
    return round(reached - started, 6) if reached else None
