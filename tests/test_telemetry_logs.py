"""Log events as lines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.telemetry.logs import (
    EventLog,
    Lines,
    journal_reads,
    json_line,
    shortened,
    text_line,
    timestamp,
    traceback_lines,
)


class EventTests(SynchronousTestCase):
    """Events and their fields."""

    def setUp(self) -> None:
        self.seen: list[Mapping[str, Any]] = []
        self.observer = EventLog("INFO", [self.seen.append])
        self.log = Logger("test", observer=self.observer)

    def test_level(self) -> None:
        """Events below the level are left out; it can change."""
        self.log.debug("no")
        self.log.info("yes")
        self.observer.set_level("DEBUG")
        self.log.debug("now")
        self.observer.set_level("CRITICAL")
        self.log.error("no more")
        self.assertEqual([fields["message"] for fields in self.seen], ["yes", "now"])

    def test_json(self) -> None:
        """A line of JSON is flat: time, level, name, message, and the event's own fields."""
        self.log.warn("{hop} is {state}", event="changed", hop="x", state="up", count=3, where=object)
        fields = json.loads(json_line(self.seen[0]))
        self.assertRegex(fields.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(
            fields,
            {
                "level": "warn",
                "event": "changed",
                "message": "x is up",
                "logger": "test",
                "hop": "x",
                "state": "up",
                "count": 3,
                "where": "<class 'object'>",
            },
        )

    def test_text(self) -> None:
        """A line of text is time, level and message; an event from an enclave says from which."""
        self.log.info("a {word}", word="b")
        line = text_line({**self.seen[0], "time": "T"})
        self.assertEqual(line, b"T info  a b\n")
        self.assertEqual(text_line({**self.seen[0], "time": "T", "cid": 16}), b"T info  [enclave 16] a b\n")

    def test_one_line(self) -> None:
        """What comes from outside begins no line of its own (S18)."""
        odd = "a\r\n2026 fake\x1b[2J\u2028b\x7f\x85\u202e\x9b2J"
        self.log.info("{name}", name=odd)
        everywhere = {name: f"{value}{odd}" for name, value in self.seen[0].items()}
        for form in (text_line, json_line):
            for fields in (self.seen[0], everywhere, {**self.seen[0], odd: odd}):
                line = form(fields)
                self.assertEqual((line[-1:], len(line.decode().splitlines())), (b"\n", 1))
                self.assertTrue(line[:-1].decode().isprintable(), line)
        self.assertEqual(json.loads(json_line(self.seen[0]))["message"], odd)
        self.assertEqual(text_line({**everywhere, "message": "Grüße"}).decode().splitlines()[0][-5:], "Grüße")

    def test_failure(self) -> None:
        """A failure's traceback is a field, or indented lines."""
        self.log.failure("it broke", Failure(ValueError("why")))
        self.assertIn("ValueError: why", json.loads(json_line(self.seen[0]))["failure"])
        first, *rest = text_line(self.seen[0]).splitlines()
        self.assertTrue(first.endswith(b"critical it broke"))
        self.assertTrue(rest and all(line.startswith(b"    ") for line in rest))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 0)

    def test_cut(self) -> None:
        """Whatever an event holds, its line is bounded: message, fields, their number and names, a traceback's end
        (K4)."""
        long = "\x00é" * 100_000
        many: dict[str, Any] = {f"{number}{long}": long for number in range(100)}
        self.log.failure("{long}", Failure(ValueError(long)), long=long, listed=[long], **many)
        [fields] = self.seen
        self.assertLessEqual(len(fields["message"].encode()), 4096)
        self.assertLessEqual(len(fields["long"].encode()), 1024)
        self.assertLessEqual(len(fields["listed"].encode()), 1024)
        self.assertIn("builtins.ValueError: ", fields["failure"])
        self.assertLess(len(fields["failure"].encode()), 16384)
        for form in (json_line, text_line):
            self.assertLess(len(form(fields)), 6 * 100_000)
        self.assertEqual(self.flushLoggedErrors(ValueError), [])

    def test_odd_values(self) -> None:
        """Values that JSON does not have, or that have no text, neither lose the event nor break its line."""

        class Silent:
            def __str__(self) -> str:
                raise RuntimeError("no text")

        self.log.info(
            "a\udcffb", silent=Silent(), huge=10**5000, big=1 << 63, bytes=b"x", nothing=None, nan=float("nan")
        )
        fields = json.loads(json_line(self.seen[0]))
        self.assertEqual(fields["message"], "a\\udcffb")
        self.assertEqual((fields["silent"], fields["huge"]), ("a Silent that has no text", "a int that has no text"))
        self.assertEqual((fields["big"], fields["bytes"]), (str(1 << 63), "b'x'"))
        self.assertEqual((fields["nothing"], fields["nan"]), (None, None))
        text_line(self.seen[0])

    def test_traceback_lines(self) -> None:
        """A traceback has a bounded number of lines in the text; empty ones do not count (K4)."""
        fields = {"time": "T", "level": "error", "message": "m", "failure": "\n \r\n\x0b" * 5000}
        self.assertEqual(text_line(fields), b"T error m\n")
        fields["failure"] = "\n".join(f"line {number}" for number in range(5000))
        lines = text_line(fields).splitlines()
        self.assertEqual((len(lines), lines[-1]), (65, b"    line 4999"))
        self.assertEqual(traceback_lines("a\n\nb"), ["a", "b"])

    def test_shortened(self) -> None:
        """What is kept of an event that is too long is under 32 KiB as a line, and says that it is not whole."""
        long = "\x00" * 300_000
        line = json_line(shortened({**dict.fromkeys(("time", "level", "event", "message", "logger", "x"), long)}))
        self.assertLess(len(line), 32 * 1024)
        self.assertIs(json.loads(line)["shortened"], True)

    def test_timestamp(self) -> None:
        """UTC, with milliseconds."""
        self.assertEqual(timestamp(0.9999), "1970-01-01T00:00:00.999Z")


class LinesTests(SynchronousTestCase):
    """Lines on their way out."""

    def test_priorities(self) -> None:
        """For the journal each line begins with its priority, those of a traceback too."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        lines = Lines("text", writer, priorities=True)
        log = Logger("test", observer=EventLog("DEBUG", [lines.take]))
        log.debug("a")
        log.error("b")
        log.failure("c", Failure(ValueError("why")))
        self.assertTrue(lines.sink.flush(5))
        first, second, third, *rest = os.read(reader, 65536).splitlines()
        self.assertEqual([line[:3] for line in (first, second, third)], [b"<7>", b"<3>", b"<2>"])
        self.assertTrue(rest and all(line.startswith(b"<2>    ") for line in rest))

    def test_marks(self) -> None:
        """Each line of one of several processes says which, also that about dropped lines, and what is shipped."""
        for form, expected in (("text", b" [worker 2] "), ("json", b'"worker":2')):
            reader, writer = os.pipe()
            lines = Lines(form, writer, priorities=False, marks={"worker": 2})
            shipped: list[Mapping[str, Any]] = []
            log = EventLog("INFO", [lines.take, shipped.append], {"worker": 2})
            log.emit("info", "access", "m", {})
            Logger("test", observer=log).info("n", event="x")
            lines.sink.flush(5)
            found = os.read(reader, 4096).splitlines()
            self.assertEqual([expected in line for line in (*found, lines._notice(3))], [True] * 3)
            self.assertEqual([fields["worker"] for fields in shipped], [2, 2])
            os.close(reader)
            os.close(writer)

    def test_origin(self) -> None:
        """What a worker of the enclave logged says both."""
        line = text_line({"time": "T", "level": "info", "message": "m", "cid": 16, "worker": 1})
        self.assertEqual(line, b"T info  [enclave 16] [worker 1] m\n")

    def test_drops_are_reported(self) -> None:
        """After lines were dropped, a line says how many."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        lines = Lines("json", writer, priorities=False)
        log = Logger("test", observer=EventLog("INFO", [lines.take]))
        for _ in range(3000):
            log.info("x" * 4000)
        self.assertGreater(lines.sink.dropped, 0)
        found: list[bytes] = []
        until = time.monotonic() + 20
        while not any(b"log_lines_dropped" in line for line in found) and time.monotonic() < until:
            found += os.read(reader, 1 << 20).splitlines()
        [notice] = [json.loads(line) for line in found if b"log_lines_dropped" in line]
        self.assertEqual(notice["count"], lines.sink.dropped)
        os.close(writer)

    def test_journal(self) -> None:
        """The journal reads where JOURNAL_STREAM says so of this very descriptor."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        status = os.fstat(writer)
        self.assertTrue(journal_reads(writer, f"{status.st_dev}:{status.st_ino}"))
        self.assertFalse(journal_reads(writer, f"{status.st_dev}:{status.st_ino + 1}"))
        self.assertFalse(journal_reads(writer, None))
