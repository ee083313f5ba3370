"""Takes the enclave's log events and gives them to the host's own log, marked with the enclave's CID.

What comes is believed in nothing but its words: the CID is the connection's, level and time must look like ours,
numbers have bounds, values are cut to size, and what does not print is escaped when a line is written.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
from prometheus_client.core import CounterMetricFamily, Metric
from twisted.internet.interfaces import IAddress
from twisted.web.server import Request, Site

from nitroproxy.http1.messages import Request as ProxyRequest
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Local, Route
from nitroproxy.telemetry.health import LocalRoot
from nitroproxy.telemetry.logs import PRIORITY_OF
from nitroproxy.telemetry.shipping import BATCH_BYTES

#: Fields of an event at most, and characters of a value.
_MOST_FIELDS: Final = 64
_LONGEST_VALUE: Final = 16384
_NEEDED: Final = ("time", "level", "event", "message")
#: Senders that are remembered: the enclave's daemon, its init, and those before a restart.
_MOST_SESSIONS: Final = 8
#: RFC 3339 as our own log writes it.
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_SESSION: Final = re.compile(r"[0-9A-Za-z]{1,64}")
_NUMBER: Final = re.compile(r"[0-9]{1,16}")
#: Numbers stay where a float, in which metrics are told, still counts each.
_NUMBERS_END: Final = 1 << 53


class LogIntake(LocalRoot):
    """``POST /logs``: lines of JSON, numbered from the field Log-First on within the session Log-Session; 204 when they
    have been taken, 400 and nothing has changed when those fields are not usable.

    :param cid: the enclave's, for connections that do not tell it.
    :param take: given the fields of each event.
    """

    isLeaf = True

    def __init__(self, cid: int, take: Callable[[Mapping[str, Any]], object]) -> None:
        super().__init__("nitroproxy-logs")
        self._cid = cid
        self._take = take
        self._next: OrderedDict[str, int] = OrderedDict()
        self._taken = 0
        self._missed = 0
        self._malformed = 0

    def render_POST(self, request: Request) -> bytes:
        """Take the lines."""
        session, first = request.getHeader("log-session") or "", request.getHeader("log-first") or ""
        if not _SESSION.fullmatch(session) or not _NUMBER.fullmatch(first) or int(first) >= _NUMBERS_END:
            request.setResponseCode(400)
            return b""
        number = int(first)
        following = self._next.pop(session, number)
        self._missed += max(number - following, 0)
        assert request.content is not None
        cid = getattr(request.getClientAddress(), "cid", self._cid)
        for line in request.content.read().splitlines():
            if number >= following:
                self._take_line(line, cid)
            number += 1
        self._next[session] = max(following, number)
        if len(self._next) > _MOST_SESSIONS:
            self._next.popitem(last=False)
        request.setResponseCode(204)
        return b""

    def _take_line(self, line: bytes, cid: int) -> None:
        try:
            fields = msgspec.json.decode(line, type=dict[str, str | int | float | bool | None])
        except (msgspec.DecodeError, ValueError):
            self._malformed += 1
            return
        if not _is_event(fields):
            self._malformed += 1
            return
        cut = {
            name[:_MOST_FIELDS]: value[:_LONGEST_VALUE] if isinstance(value, str) else value
            for name, value in fields.items()
        }
        self._taken += 1
        self._take({**cut, "cid": cid})

    def collect(self) -> Iterator[Metric]:
        """Lines taken, and lines that were lost on the way."""
        family = CounterMetricFamily("nitroproxy_enclave_log_lines", "Log lines of the enclave.", labels=["outcome"])
        for outcome, count in (("taken", self._taken), ("missed", self._missed), ("malformed", self._malformed)):
            family.add_metric([outcome], count)
        yield family


def _is_event(fields: Mapping[str, str | int | float | bool | None]) -> bool:
    """Whether *fields* are such as our own log makes."""
    return (
        len(fields) <= _MOST_FIELDS
        and all(isinstance(fields.get(name), str) for name in _NEEDED)
        and fields["level"] in PRIORITY_OF
        and _TIME.fullmatch(str(fields["time"])) is not None
        and all(abs(value) < _NUMBERS_END for value in fields.values() if isinstance(value, int))
    )


class LogRouter:
    """The log listener's routing: everything goes to the intake's resource tree."""

    def __init__(self, intake: LogIntake) -> None:
        root = LocalRoot("nitroproxy-logs")
        root.putChild(b"logs", intake)
        self._site = Site(root)

    def route(self, request: ProxyRequest, record: Record) -> Route:
        """See `nitroproxy.proxy.route.Router.route`."""
        return Local(self._site, longest_body=BATCH_BYTES)

    def check_tunnel(self, record: Record, address: IAddress) -> None:
        """See `nitroproxy.proxy.route.Router.check_tunnel`: here is none."""
