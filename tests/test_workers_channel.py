"""Questions and answers between two processes."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import msgspec
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.jsonc import LONGEST_FILE
from nitroproxy.telemetry.logs import EventLog
from nitroproxy.workers import channel
from nitroproxy.workers.channel import LONGEST, Channel, NoAnswer, first_string
from tests.pair import Pair


class ChannelTests(SynchronousTestCase):
    """Two ends."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.lost: list[str] = []

        async def double(about: Any) -> Any:
            return about * 2

        async def fail(about: Any) -> Any:
            raise ValueError(about)

        answerers = {"double": double, "fail": fail}
        self.one = Channel(self.clock, answerers, lambda: self.lost.append("one"))
        self.other = Channel(self.clock, answerers, lambda: self.lost.append("other"))
        self.pair = Pair(self.one, self.other)

    def test_both_ways(self) -> None:
        """Each end asks the other, several things at a time, and each answer finds its question."""
        asked = [self.one.ask("double", 21), self.one.ask("double", b"ab"), self.other.ask("double", [1])]
        self.pair.carry()
        self.assertEqual([self.successResultOf(answer) for answer in asked], [42, b"abab", [1, 1]])

    def test_by_the_byte(self) -> None:
        """However the bytes arrive, the messages are whole."""
        asked = self.one.ask("double", "x" * 300)
        data = self.pair.ends[0].value()
        for index in range(len(data)):
            self.assertNoResult(asked)
            self.other.dataReceived(data[index : index + 1])
        self.pair.ends[0].clear()
        self.pair.carry()
        self.assertEqual(self.successResultOf(asked), "x" * 600)

    def test_failure(self) -> None:
        """What cannot be done fails with its reason, and is logged where it happened."""
        asked = self.one.ask("fail", "so")
        self.pair.carry()
        self.assertEqual(str(self.failureResultOf(asked, NoAnswer).value), "ValueError: so")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_too_long(self) -> None:
        """A question or an answer that is too long fails, and is not sent: the other end would close the channel."""
        self.patch(channel, "LONGEST", 1000)
        self.assertIn("over 1000 bytes", str(self.failureResultOf(self.one.ask("double", "x" * 1000), NoAnswer).value))
        asked = self.one.ask("double", "x" * 600)
        self.pair.carry()
        self.assertIn("over 1000 bytes", str(self.failureResultOf(asked, NoAnswer).value))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        again = self.one.ask("double", 21)
        self.pair.carry()
        self.assertEqual(self.successResultOf(again), 42)

    def test_unreadable(self) -> None:
        """A message that cannot be read closes the channel with a line, and is no traceback (K6)."""
        events: list[Mapping[str, Any]] = []
        observer = EventLog("INFO", [events.append])
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for message in (b"\xc1", msgspec.msgpack.encode(["?", "x"]), msgspec.msgpack.encode({"number": 1})):
            pair = Pair(Channel(self.clock, {}, lambda: None), Channel(self.clock, {}, lambda: None))
            pair.ends[1].channel.dataReceived(len(message).to_bytes(4, "big") + message)
            self.assertTrue(pair.ends[1].disconnecting)
        self.assertEqual([event["event"] for event in events], ["channel_unreadable"] * 3)

    def test_timeout(self) -> None:
        """An answer is waited for no longer than the time given; one that comes later disturbs nothing."""
        asked = self.one.ask("double", 1, timeout=2)
        self.clock.advance(2.1)
        self.assertIn("within 2 s", str(self.failureResultOf(asked, NoAnswer).value))
        self.pair.carry()
        again = self.one.ask("double", 2)
        self.pair.carry()
        self.assertEqual(self.successResultOf(again), 4)

    def test_lost(self) -> None:
        """When the other end closes, what waits for an answer fails at once, and so does what is asked then."""
        asked = self.one.ask("double", 1)
        self.pair.break_off()
        self.failureResultOf(asked, NoAnswer)
        self.failureResultOf(self.one.ask("double", 1), NoAnswer)
        self.assertEqual(self.lost, ["one", "other"])


class FirstTests(SynchronousTestCase):
    """The message without which a process cannot begin."""

    def test_first(self) -> None:
        """It is read to its last byte and no further, in several pieces too."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(b"\0\0\0\5hello\0\0\0\1x")
            self.assertEqual(first_string(theirs.fileno()), b"hello")
            self.assertEqual(first_string(theirs.fileno()), b"x")

    def test_long_enough(self) -> None:
        """The longest configuration fits."""
        self.assertGreaterEqual(LONGEST, 2 * LONGEST_FILE)

    def test_too_long(self) -> None:
        """One that is too long is not waited for, nor is there memory for it."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall((LONGEST + 1).to_bytes(4, "big"))
            self.assertIn("over", str(self.assertRaises(EOFError, first_string, theirs.fileno())))

    def test_gone(self) -> None:
        """An end that has gone is no message."""
        ours, theirs = socket.socketpair()
        with theirs:
            ours.sendall(b"\0\0\0\5he")
            ours.close()
            self.assertRaises(EOFError, first_string, theirs.fileno())
