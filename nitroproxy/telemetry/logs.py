"""Log events as lines: text for people, flat JSON for machines; with systemd's priorities when the journal reads them.

Events come from `twisted.logger`. Ours have a field ``event``, their name, by which the operations guide lists them.
What comes from outside is escaped: a line is one event. Whatever an event holds, it is cut to size here: each field in
bytes, a traceback in lines too, so an event has at most some 50 KiB before it is escaped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import msgspec
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    formatEvent,
)
from zope.interface import implementer

from nitroproxy.errors import cut
from nitroproxy.telemetry.sink import LogSink

#: The configuration's level names, as twisted.logger calls them, and syslog's priority for each (sd-daemon(3)).
_LEVELS: Final = {
    "DEBUG": (LogLevel.debug, 7),
    "INFO": (LogLevel.info, 6),
    "WARN": (LogLevel.warn, 4),
    "ERROR": (LogLevel.error, 3),
    "CRITICAL": (LogLevel.critical, 2),
}
_PRIORITIES: Final = dict(_LEVELS.values())
#: Levels as log lines name them, and their priorities.
PRIORITY_OF: Final = {name.lower(): priority for name, (_, priority) in _LEVELS.items()}
#: Bytes of an event's message, and of any other field; fields of an event.
_MESSAGE_BYTES: Final = 4096
_FIELD_BYTES: Final = 1024
_MOST_FIELDS: Final = 32
#: Lines of a traceback that are kept, the last ones, and bytes of each.
MOST_TRACEBACK_LINES: Final = 64
_TRACEBACK_LINE_BYTES: Final = 240
#: What is left of an event that is too long as a line, and bytes of each field: even if each byte has to be escaped in
#: six, the line is under 32 KiB.
_SHORTENED: Final = ("time", "level", "event", "message", "logger")
_SHORTENED_BYTES: Final = 768
#: Fields that belong to twisted.logger or to twisted.python.log, not to the event.
_NOT_THE_EVENTS: Final = frozenset({"message", "isError", "time", "system", "format", "text", "why", "failure"})
_LOG: Final = msgspec.json.Encoder(enc_hook=str)

#: Turns an event's fields into a line.
Form = Callable[[Mapping[str, Any]], bytes]


def printable(text: str) -> str:
    """*text* with unprintable characters escaped: controls, line separators, bidirectional marks."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def timestamp(seconds: float) -> str:
    """RFC 3339, in UTC, to the millisecond."""
    whole = int(seconds)
    return f"{_to_the_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(maxsize=4)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def fields_of(event: LogEvent) -> dict[str, Any]:
    """The event as flat fields: time, level, name, message, its own fields, and the traceback of a failure. Each is cut
    to its bound; what is no text, number, boolean or None becomes text."""
    level = event.get("log_level", LogLevel.info)
    text = event.get("text")
    fields: dict[str, Any] = {
        "time": timestamp(event.get("log_time", 0.0)),
        "level": level.name,
        "event": _plain(event.get("event", "log")),
        "message": cut(str(text) if text is not None else formatEvent(event), _MESSAGE_BYTES),
        "logger": _plain(event.get("log_namespace", "")),
    }
    for name, value in event.items():
        if len(fields) >= _MOST_FIELDS:
            break
        if not name.startswith("log_") and name not in fields and name not in _NOT_THE_EVENTS:
            fields[cut(name, _FIELD_BYTES)] = _plain(value)
    failure = event.get("log_failure")
    if failure is not None:
        lines = traceback_lines(failure.getTraceback())
        fields["failure"] = "\n".join(cut(line, _TRACEBACK_LINE_BYTES) for line in lines)
    return fields


def _plain(value: object) -> str | int | float | bool | None:
    """*value* as JSON has it without structure."""
    if value is None or isinstance(value, float) or (isinstance(value, int) and -(1 << 63) <= value < 1 << 63):
        return value
    try:
        return cut(str(value), _FIELD_BYTES)
    except Exception:
        return f"a {type(value).__name__} that has no text"


def shortened(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an event that makes too long a line: a line of it has at most 32 KiB."""
    kept = {name: cut(str(fields[name]), _SHORTENED_BYTES) for name in _SHORTENED if name in fields}
    return {**kept, "shortened": True}


def json_line(fields: Mapping[str, Any]) -> bytes:
    """One JSON object. Characters that JSON allows and a terminal would obey are escaped."""
    line = _LOG.encode(fields)
    if not line.isascii() or b"\x7f" in line:
        text = line.decode("utf-8")
        line = "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text).encode("utf-8")
    return line + b"\n"


def text_line(fields: Mapping[str, Any]) -> bytes:
    """For a person; the end of a traceback follows on lines that are indented, at most `MOST_TRACEBACK_LINES`."""
    origin = f" [enclave {fields['cid']}]" if "cid" in fields else ""
    if "worker" in fields:
        origin += f" [worker {fields['worker']}]"
    line = printable(f"{fields['time']} {fields['level']:5}{origin} {fields['message']}") + "\n"
    if "failure" in fields:
        line += "".join(f"    {printable(trace)}\n" for trace in traceback_lines(str(fields["failure"])))
    return line.encode("utf-8", "backslashreplace")


def traceback_lines(text: str) -> list[str]:
    """The last lines of a traceback that are not empty, at most `MOST_TRACEBACK_LINES`."""
    return [line for line in text.splitlines() if line and not line.isspace()][-MOST_TRACEBACK_LINES:]


FORMS: Final[Mapping[str, Form]] = {"text": text_line, "json": json_line}


def journal_reads(descriptor: int, stream: str | None) -> bool:
    """Whether the journal is at the other end of *descriptor* (systemd.exec(5), ``$JOURNAL_STREAM``)."""
    if not stream:
        return False
    status = os.fstat(descriptor)
    return stream == f"{status.st_dev}:{status.st_ino}"


class Lines:
    """Makes lines of events and gives them to a sink.

    :param form: ``text`` or ``json``.
    :param priorities: begin each line with its priority for the journal.
    :param marks: fields of the lines about dropped lines; `EventLog` puts them on events.
    """

    def __init__(
        self, form: str, descriptor: int, *, priorities: bool, marks: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self._form = FORMS[form]
        self._priorities = priorities
        self._marks = marks
        self.sink = LogSink(descriptor, self._notice)

    def take(self, fields: Mapping[str, Any]) -> None:
        """Write one event."""
        self.sink.write(self._line(fields))

    def _line(self, fields: Mapping[str, Any]) -> bytes:
        line = self._form(fields)
        if self._priorities:
            prefix = b"<%d>" % _PRIORITIES.get(_named(fields["level"]), 6)
            line = b"".join(prefix + part for part in line.splitlines(keepends=True))
        return line

    def _notice(self, count: int) -> bytes:
        message = f"{count} log lines were dropped: their reader does not keep up, or writing failed"
        fields = {"time": timestamp(time.time()), "level": "warn", "event": "log_lines_dropped", "message": message}
        return self._line({**fields, "logger": __name__, "count": count, **self._marks})


def _named(level: str) -> Any:
    return _LEVELS.get(level.upper(), _LEVELS["INFO"])[0]


@implementer(ILogObserver)
class EventLog:
    """The daemon's log observer: passes events of the level and above to every taker.

    :param level: ``DEBUG``, ``INFO``, ``WARN``, ``ERROR`` or ``CRITICAL``.
    :param takers: called with the fields of each event.
    :param marks: fields of every event: which process it comes from.
    :ivar active: whether `emit` does anything: not where another observer has the daemon's log.
    """

    active = True

    def __init__(
        self,
        level: str,
        takers: Sequence[Callable[[Mapping[str, Any]], object]],
        marks: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._predicate = LogLevelFilterPredicate()
        self.set_level(level)
        self._takers = takers
        self._marks = marks

    def set_level(self, level: str) -> None:
        """Leave out less severe events from now on."""
        self._predicate.setLogLevelForNamespace("", _LEVELS[level][0])
        self._priority = _LEVELS[level][1]

    def emit(self, level: str, event: str, text: str, fields: dict[str, Any]) -> None:
        """Pass an event to the takers directly, not through `twisted.logger`: for what happens with every request.

        :param level: in lower case.
        :param text: the message for a person.
        :param fields: the event's own; the caller bounds their sizes.
        """
        if PRIORITY_OF[level] > self._priority or not self.active:
            return
        whole = {
            "time": timestamp(time.time()),
            "level": level,
            "event": event,
            "message": text,
            **fields,
            **self._marks,
        }
        for take in self._takers:
            take(whole)

    def __call__(self, event: LogEvent) -> None:
        """See `ILogObserver`."""
        if self._predicate(event) is PredicateResult.no:
            return
        fields = {**fields_of(event), **self._marks}
        for take in self._takers:
            take(fields)
