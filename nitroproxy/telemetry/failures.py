"""The latest failures, for a person: each with the destination and the id of a request, never its path.

A failure that comes again is counted where it stands. What is kept is bounded, however many destinations fail and in
however many ways, and a flood of one failure does not push the others out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from twisted.internet.interfaces import IAddress

from nitroproxy.errors import HOPS, Kind
from nitroproxy.proxy.observer import Observer
from nitroproxy.proxy.record import Record
from nitroproxy.telemetry.logs import printable

#: The question for what a process has seen.
FAILURES: Final = "failures"

#: Failures of different kinds that are kept, and destinations of each.
_MOST_KINDS: Final = 32
_MOST_DESTINATIONS: Final = 8
#: Characters of a destination.
_LONGEST_DESTINATION: Final = 80
_ID: Final = re.compile(r"[0-9A-Za-z._-]{1,64}")
#: What a mistyped page is answered with: nobody's failure.
_OUR_PAGES: Final = frozenset({Kind.NOT_FOUND, Kind.METHOD_NOT_ALLOWED})


class Failure(msgspec.Struct, frozen=True):
    """One failure.

    :ivar error: its public name; where only another hop knows that, its Proxy-Status token.
    :ivar found_by: the hop that found it.
    :ivar destination: host and port; empty where there was none.
    :ivar count: how often, for this destination.
    :ivar seconds: how long ago the last time was.
    :ivar request_id: the last one's; empty for a connection that was turned away.
    """

    error: str
    found_by: str
    destination: str
    count: int
    seconds: float
    request_id: str


@dataclass(slots=True)
class _Noted:
    count: int
    at: float
    request_id: str


class Failures(Observer):
    """Those that one process has seen, on its listeners or in another daemon's log.

    :param hop: the name of the hop that it observes; empty when it only takes the enclave's log.
    :param seconds: gives the time of a monotonic clock.
    :ivar told: the enclave's log has told of a request, so that what it knows of a failure can be had from there.
    """

    def __init__(self, hop: str, seconds: Callable[[], float]) -> None:
        self._hop = hop
        self._seconds = seconds
        self.told = False
        #: By error and hop, and in these by destination; the latest last.
        self._noted: dict[tuple[str, str], dict[str, _Noted]] = {}

    def refused(self, kind: Kind, peer: IAddress) -> None:
        """See `Observer`."""
        self._note(kind.public_name, self._hop, "", "")

    def ended(self, record: Record, now: float) -> None:
        """See `Observer`."""
        destination = f"{record.host}:{record.port}" if record.host else ""
        request_id = record.request_id.decode("ascii")
        if record.error is not None:
            if record.error not in _OUR_PAGES:
                self._note(record.error.public_name, record.found_by, destination, request_id)
        elif record.passed_on is not None:
            found_by, token = record.passed_on
            self._note(token, found_by, destination, request_id)

    def take(self, fields: Mapping[str, Any]) -> None:
        """Look at an event of the enclave's log, which is not trusted."""
        event = fields["event"]
        if event == "connection_refused":
            self._note_told(str(fields.get("reason", "")), str(fields.get("hop", "")), "", "")
        elif event == "access":
            self.told = True
            host, port = str(fields.get("host", "")), fields.get("port")
            destination = f"{host}:{port}" if host else ""
            request_id = str(fields.get("request_id", ""))
            self._note_told(str(fields.get("error", "")), str(fields.get("found_by", "")), destination, request_id)

    def _note_told(self, error: str, found_by: str, destination: str, request_id: str) -> None:
        kind = Kind.from_public_name(error) if error else None
        if kind is None or kind in _OUR_PAGES or found_by not in HOPS:
            return
        self._note(error, found_by, printable(destination), request_id if _ID.fullmatch(request_id) else "")

    def _note(self, error: str, found_by: str, destination: str, request_id: str) -> None:
        key = error, found_by
        of_kind = self._noted.pop(key, None) or {}
        self._noted[key] = of_kind
        destination = destination[:_LONGEST_DESTINATION]
        noted = of_kind.pop(destination, None) or _Noted(0, 0.0, "")
        of_kind[destination] = noted
        noted.count += 1
        noted.at, noted.request_id = self._seconds(), request_id
        if len(of_kind) > _MOST_DESTINATIONS:
            del of_kind[next(iter(of_kind))]
        if len(self._noted) > _MOST_KINDS:
            del self._noted[next(iter(self._noted))]

    async def answer(self, about: Any) -> Any:
        """`tell` in plain values: see `nitroproxy.daemon.role.Serving.answerers`."""
        return msgspec.to_builtins(self.tell())

    def tell(self) -> list[Failure]:
        """The failures, in no order."""
        now = self._seconds()
        return [
            Failure(error, found_by, destination, noted.count, now - noted.at, noted.request_id)
            for (error, found_by), of_kind in self._noted.items()
            for destination, noted in of_kind.items()
        ]
