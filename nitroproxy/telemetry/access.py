"""The access log: one event for each exchange, when it is over."""

from __future__ import annotations

from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from nitroproxy.errors import Kind
from nitroproxy.proxy.record import Record, Unobserved

_log: Final = Logger()


class AccessLog(Unobserved):
    """Logs what a listener did. Never a path, query, field or body.

    :param hop: the role's name.
    """

    def __init__(self, hop: str) -> None:
        self._hop = hop

    def refused(self, kind: Kind, peer: IAddress) -> None:
        """A connection was turned away."""
        _log.warn(
            "{hop}: turned a connection from {peer} away: {reason}",
            event="connection_refused",
            hop=self._hop,
            peer=_shown(peer),
            reason=kind.public_name,
        )

    def switched(self, record: Record) -> None:
        """A tunnel may last; that it was opened is worth knowing before it ends."""
        _log.info(
            "{hop} {method} {host}:{port} opened id={request_id}",
            event="tunnel",
            hop=self._hop,
            request_id=record.request_id.decode("ascii"),
            method=record.method.decode("ascii"),
            host=record.host,
            port=record.port,
            peer=_shown(record.peer),
        )

    def ended(self, record: Record, now: float) -> None:
        """Log it: as a warning when it failed on the way, for debugging when it was a page of the proxy's own."""
        seconds = now - record.started
        method = record.method.decode("ascii", "replace") or "-"
        where = f" {record.host}:{record.port}" if record.host else ""
        outcome = record.error.public_name if record.error is not None else "client_gone" if record.client_gone else ""
        fields = {
            "event": "access",
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
        }
        if outcome:
            fields["error"] = outcome
        if record.error is not None:
            fields["detail"] = record.detail
            fields["found_by"] = record.found_by
        if record.opened_by not in (b"", record.request_id):
            fields["opened_by"] = record.opened_by.decode("ascii")
        if record.traceparent:
            fields["traceparent"] = record.traceparent.decode("ascii")
        text = (
            f"{self._hop} {method}{where} {record.status or '-'}{' ' + outcome if outcome else ''} "
            f"{seconds:.3f}s in={record.received} out={record.sent} id={fields['request_id']}"
        )
        if record.error is not None:
            emit = _log.warn if record.error.status >= 500 else _log.info
        else:
            emit = _log.info if record.host else _log.debug
        emit("{text}", text=text, **fields)


def _shown(peer: IAddress | None) -> str:
    """An address as ``host:port``; what has neither by its own name, which for a UNIX socket's client says nothing."""
    if isinstance(peer, IPv4Address | IPv6Address):
        return f"[{peer.host}]:{peer.port}" if isinstance(peer, IPv6Address) else f"{peer.host}:{peer.port}"
    return "unix" if isinstance(peer, UNIXAddress) else str(peer)


def _phase(started: float, reached: float) -> float | None:
    """Seconds from the beginning; None for what was never reached."""
    return round(reached - started, 6) if reached else None
