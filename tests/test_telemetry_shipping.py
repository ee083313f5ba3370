"""The enclave's log on its way to the host: bounded, acknowledged, never in the way (F12)."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.telemetry.logs import json_line
from nitroproxy.telemetry.shipping import BATCH_BYTES, LINE_BYTES, LogShipper, post_to
from nitroproxy.telemetry.sink import size_of
from tests.wire import OneHop


def event(number: int, message: str = "x") -> dict[str, object]:
    """An event's fields."""
    return {"time": "T", "level": "info", "event": "log", "message": message, "number": number}


#: Bytes of memory that the tests' short lines take each, at most.
LINE = size_of(json_line(event(99)))


class ShipperTests(SynchronousTestCase):
    """A host that takes batches when the test says so."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.batches: list[tuple[str, int, list[int]]] = []
        self.answers: list[Deferred[None]] = []
        self.shipper = LogShipper(self.post, self.clock, most=10 * LINE)

    async def post(self, session: str, first: int, lines: bytes) -> None:
        self.assertTrue(0 < len(lines) <= BATCH_BYTES)
        self.posted = lines
        self.batches.append((session, first, [json.loads(line).get("number", -1) for line in lines.splitlines()]))
        answer: Deferred[None] = Deferred()
        self.answers.append(answer)
        await answer

    def take(self, *numbers: int) -> None:
        for number in numbers:
            self.shipper.take(event(number))

    def test_batches(self) -> None:
        """Lines are gathered, sent in one batch, and what comes meanwhile in the next."""
        self.take(1, 2)
        self.assertEqual(self.batches, [])
        self.clock.advance(0.3)
        self.take(3)
        self.answers.pop().callback(None)
        self.clock.advance(0.3)
        [(session, first, one), (again, second, two)] = self.batches
        self.assertEqual((one, two, first, second), ([1, 2], [3], 0, 2))
        self.assertEqual(session, again)
        self.answers.pop().callback(None)
        self.clock.advance(10)
        self.assertEqual((len(self.batches), self.clock.getDelayedCalls()), (2, []))

    def test_not_acknowledged(self) -> None:
        """What the host does not acknowledge is sent again, under the same numbers, with growing pauses."""
        self.take(1)
        self.clock.advance(0.3)
        for pause in (0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
            self.answers.pop().errback(ProxyError(Kind.RELAY_UNAVAILABLE, "gone"))
            self.clock.advance(pause - 0.1)
            self.assertEqual(self.answers, [])
            self.clock.advance(0.2)
            self.assertEqual(self.batches[-1][1:], (0, [1]))
        self.answers.pop().callback(None)
        self.clock.advance(30)
        self.assertEqual(len(self.batches), 8)

    def test_full(self) -> None:
        """Beyond what the ring holds the oldest are dropped and counted, also while they are being sent."""
        self.take(*range(10, 15))
        self.clock.advance(0.3)
        self.take(*range(15, 28))
        self.assertEqual(self.shipper.dropped, 8)
        self.answers.pop().callback(None)
        self.assertEqual(self.batches[-1][1:], (8, list(range(18, 28))))

    def test_bounded_in_bytes(self) -> None:
        """However long the lines, what waits takes no more bytes than may wait (K4)."""
        for message in ("", "y" * 3000, "\x00" * 3000):
            shipper = LogShipper(self.post, self.clock, most=100_000)
            for number in range(1000):
                shipper.take(event(number, message))
            each = size_of(json_line(event(999, message)))
            fit = 100_000 // each
            self.assertAlmostEqual(1000 - shipper.dropped, fit, delta=fit // 20 + 1)
            shipper.stop()

    def large(self) -> list[int]:
        """The numbers of the lines that arrive while the host takes all of it."""
        self.clock.advance(0.3)
        while self.answers:
            self.answers.pop().callback(None)
        return [number for _, _, batch in self.batches for number in batch]

    def test_large(self) -> None:
        """A batch has at most its size, which `post` checks; what does not fit goes in the next one."""
        self.shipper = LogShipper(self.post, self.clock)
        for number in range(30):
            self.shipper.take(event(number, "y" * 30_000))
        self.assertEqual(self.large(), list(range(30)))
        self.assertGreater(len(self.batches), 3)

    def test_line_over_a_batch(self) -> None:
        """A line longer than a whole batch is shortened, whichever field makes it so long; shipping goes on behind it
        and no empty batch is posted (K4)."""
        self.shipper = LogShipper(self.post, self.clock)
        long = "\x00" * BATCH_BYTES
        for fields in ({"message": long}, {"detail": long}, {"failure": long}, dict.fromkeys("abc", long)):
            self.shipper.take({**event(1), **fields})
        self.shipper.take({name: long for name in ("time", "level", "event", "message", "logger")})
        self.shipper.take(event(2))
        self.clock.advance(0.3)
        posted = [json.loads(line) for line in self.posted.splitlines()]
        self.assertEqual([line.get("shortened", False) for line in posted], [True] * 5 + [False])
        self.assertTrue(all(len(line) < LINE_BYTES for line in self.posted.splitlines()))
        self.answers.pop().callback(None)
        self.clock.advance(60)
        self.assertEqual(len(self.batches), 1)

    def test_unexpected_failure(self) -> None:
        """A failure that no host causes is logged once with its traceback, and the lines are sent again later."""
        self.take(1)
        self.clock.advance(0.3)
        for pause in (0.5, 1.0):
            self.answers.pop().errback(ZeroDivisionError())
            self.clock.advance(pause + 0.1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.answers.pop().callback(None)
        self.assertEqual(self.batches[-1][1:], (0, [1]))

    def test_flush_under_way(self) -> None:
        """While a batch is under way flushing waits for it and for all that came after it (K7)."""
        self.take(1)
        self.clock.advance(0.3)
        self.take(2)
        done = self.shipper.flush()
        self.assertNoResult(done)
        self.answers.pop().callback(None)
        self.assertNoResult(done)
        self.answers.pop().callback(None)
        self.successResultOf(done)
        self.assertEqual([batch for _, _, batch in self.batches], [[1], [2]])

    def test_flush_fails_under_way(self) -> None:
        """When the batch under way fails, flushing has failed too and waits no longer."""
        self.take(1)
        self.clock.advance(0.3)
        done = self.shipper.flush()
        self.answers.pop().errback(ProxyError(Kind.RELAY_UNAVAILABLE, "gone"))
        self.successResultOf(done)

    def test_flush_has_an_end(self) -> None:
        """A host that is slow with every batch holds the enclave's end up for ten seconds and no longer."""
        self.take(1)
        done = self.shipper.flush()
        self.clock.advance(9.9)
        self.assertNoResult(done)
        self.clock.advance(0.2)
        self.assertIsNone(self.successResultOf(done))
        self.shipper.stop()
        self.answers.pop().callback(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_flush(self) -> None:
        """At the end what waits is sent at once, and once more only."""
        self.take(1)
        done = self.shipper.flush()
        self.assertNoResult(done)
        self.answers.pop().errback(ProxyError(Kind.RELAY_UNAVAILABLE, "gone"))
        self.successResultOf(done)
        self.shipper.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PostTests(SynchronousTestCase):
    """A batch over HTTP."""

    def test_post(self) -> None:
        """It goes as one request with its numbers; anything but 204 is a failure."""
        hop = OneHop()
        for status, good in ((b"204 No Content", True), (b"400 Bad Request", False)):
            posting: Any = post_to(hop.pool, hop.deadlines)("a-session", 7, b"line\n")
            posted: Deferred[None] = Deferred.fromCoroutine(posting)
            upstream = hop.endpoint.accept()
            sent = upstream.take()
            self.assertTrue(sent.startswith(b"POST /logs HTTP/1.1\r\n"))
            self.assertIn(b"Log-Session: a-session\r\nLog-First: 7\r\nContent-Length: 5\r\n\r\nline\n", sent)
            upstream.receive(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            if good:
                self.assertIsNone(self.successResultOf(posted))
            else:
                self.assertIn("400", str(self.failureResultOf(posted, ProxyError).value))
        self.assertLess(BATCH_BYTES, 1 << 20)
