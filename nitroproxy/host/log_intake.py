"""Takes the enclave's log events and gives them to the host's own log, marked with the enclave's CID.

The enclave is not trusted with the host's log: the CID is the connection's, level and time must look like ours, numbers
have bounds, a line has at most `LINE_BYTES`, all tracebacks of a post together have `_TRACEBACK_LINES` lines, and what
does not print is escaped when a line is written. Numbers of lines that are said to be missing count for no more than a
ring could have lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
from prometheus_client.core import CounterMetricFamily, Metric
from twisted.internet.interfaces import IAddress
from twisted.web.server import Request, Site

from nitroproxy.errors import Kind, ProxyError, cut
from nitroproxy.http1.messages import Request as ProxyRequest
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Local, Route
from nitroproxy.telemetry.health import LocalRoot, problem_page
from nitroproxy.telemetry.logs import PRIORITY_OF, traceback_lines
from nitroproxy.telemetry.shipping import BATCH_BYTES, LINE_BYTES

_HOP: Final = "nitroproxy-logs"
#: Connections that the log listener serves at once, and sessions that it remembers: one for each process of an enclave,
#: which are up to 65, and some for those that are started again. A connection may hold a batch.
LOG_CONNECTIONS: Final = 80
#: Fields of an event at most, and bytes of a name and of a value.
_MOST_FIELDS: Final = 64
_NAME_BYTES: Final = 64
_VALUE_BYTES: Final = 16384
#: Bytes of a line at least: what an event needs has more. A post may be all line breaks, and to decode what is between
#: a quarter of a million of them takes seconds.
_SHORTEST_LINE: Final = 64
#: Lines that the tracebacks of one post have in all: each becomes a line of the host's log, however short.
_TRACEBACK_LINES: Final = 512
#: Lines that one post can report as missing: more than a ring loses between two posts in minutes at full load.
_MOST_MISSED: Final = 1_000_000
_NEEDED: Final = ("time", "level", "event", "message")
#: RFC 3339 as our own log writes it.
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_SESSION: Final = re.compile(r"[0-9A-Za-z]{1,64}")
_NUMBER: Final = re.compile(r"[0-9]{1,16}")
#: Numbers stay below this, so that a float, in which metrics are exported, still counts each.
_NUMBERS_END: Final = 1 << 53


class LogIntake(LocalRoot):
    """``POST /logs``: lines of JSON, numbered from the field Log-First on within the session Log-Session.

    The answer is 204 when they have been taken; 400, naming the field, and nothing has changed when one of those fields
    is not usable. A line that is no event is counted as malformed and left out; the others are taken.

    :param cid: the enclave's, for connections whose address has none.
    :param take: called with the fields of each event.
    """

    isLeaf = True

    def __init__(self, cid: int, take: Callable[[Mapping[str, Any]], object]) -> None:
        super().__init__(_HOP)
        self._cid = cid
        self._take = take
        #: The number that comes next in each session, the session that posted last at the end.
        self._next: dict[str, int] = {}
        self._taken = 0
        self._missed = 0
        self._malformed = 0
        self._traceback_lines = 0

    def render_POST(self, request: Request) -> bytes:
        """Take the lines."""
        session, first = request.getHeader("log-session") or "", request.getHeader("log-first") or ""
        if not _SESSION.fullmatch(session):
            return self._unusable(request, "the Log-Session field is not 1 to 64 letters and digits")
        if not _NUMBER.fullmatch(first) or int(first) >= _NUMBERS_END:
            return self._unusable(request, "the Log-First field is not a number below 2^53")
        number = int(first)
        expected = self._next.pop(session, number)
        self._missed += min(max(number - expected, 0), _MOST_MISSED)
        self._traceback_lines = _TRACEBACK_LINES
        assert request.content is not None
        cid = getattr(request.getClientAddress(), "cid", self._cid)
        for line in request.content.read().splitlines():
            if number >= expected:
                self._take_line(line, cid)
            number += 1
        self._next[session] = max(expected, number)
        if len(self._next) > LOG_CONNECTIONS:
            del self._next[next(iter(self._next))]
        request.setResponseCode(204)
        return b""

    @staticmethod
    def _unusable(request: Request, why: str) -> bytes:
        return problem_page(ProxyError(Kind.MALFORMED_REQUEST, why), _HOP, request)

    def _take_line(self, line: bytes, cid: int) -> None:
        if not _SHORTEST_LINE <= len(line) <= LINE_BYTES:  # No line that an enclave of ours sends.
            self._malformed += 1
            return
        try:
            fields = msgspec.json.decode(line, type=dict[str, str | int | float | bool | None])
        except (msgspec.DecodeError, ValueError):
            self._malformed += 1
            return
        if not _is_event(fields):
            self._malformed += 1
            return
        taken = {
            cut(name, _NAME_BYTES): cut(value, _VALUE_BYTES) if isinstance(value, str) else value
            for name, value in fields.items()
        }
        if "failure" in taken:
            self._cut_traceback(taken)
        self._taken += 1
        self._take({**taken, "cid": cid})

    def _cut_traceback(self, fields: dict[str, str | int | float | bool | None]) -> None:
        """Leave the end of the traceback, as far as this post has lines left."""
        lines = traceback_lines(str(fields["failure"]))
        left_out = max(len(lines) - self._traceback_lines, 0)
        kept = lines[left_out:]
        self._traceback_lines -= len(kept)
        fields["failure"] = "\n".join(kept)
        if left_out:
            fields["failure_lines_left_out"] = left_out

    def collect(self) -> Iterator[Metric]:
        """Lines taken, and lines that were lost on the way."""
        family = CounterMetricFamily("nitroproxy_enclave_log_lines", "Log lines of the enclave.", labels=["outcome"])
        for outcome, count in (("taken", self._taken), ("missed", self._missed), ("malformed", self._malformed)):
            family.add_metric([outcome], count)
        yield family


def _is_event(fields: Mapping[str, str | int | float | bool | None]) -> bool:
    """Whether *fields* are those of an event that our own log makes."""
    return (
        len(fields) <= _MOST_FIELDS
        and all(isinstance(fields.get(name), str) for name in _NEEDED)
        and fields["level"] in PRIORITY_OF
        and _TIME.fullmatch(str(fields["time"])) is not None
        and all(abs(value) < _NUMBERS_END for value in fields.values() if isinstance(value, int))
    )


class LogRouter:
    """The log listener's routing: every request is for the intake's resource tree."""

    def __init__(self, intake: LogIntake) -> None:
        root = LocalRoot(_HOP)
        root.putChild(b"logs", intake)
        self._site = Site(root)

    def route(self, request: ProxyRequest, record: Record) -> Route:
        """See `nitroproxy.proxy.route.Router.route`."""
        return Local(self._site, longest_body=BATCH_BYTES)

    def check_tunnel(self, record: Record, address: IAddress) -> None:
        """See `nitroproxy.proxy.route.Router.check_tunnel`: this listener has no tunnels."""
