"""The enclave's log on its way to the host: bounded, acknowledged, never in the way (F12)."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.telemetry.shipping import BATCH_BYTES, LogShipper, post_to
from tests.wire import OneHop


def event(number: int, message: str = "x") -> dict[str, object]:
    """An event's fields."""
    return {"time": "T", "level": "info", "event": "log", "message": message, "number": number}


class ShipperTests(SynchronousTestCase):
    """A host that takes batches when the test says so."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.batches: list[tuple[str, int, list[int]]] = []
        self.answers: list[Deferred[None]] = []
        self.shipper = LogShipper(self.post, self.clock, most=10)

    async def post(self, session: str, first: int, lines: bytes) -> None:
        self.batches.append((session, first, [json.loads(line)["number"] for line in lines.splitlines()]))
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
        self.take(*range(5))
        self.clock.advance(0.3)
        self.take(*range(5, 18))
        self.assertEqual(self.shipper.dropped, 8)
        self.answers.pop().callback(None)
        self.assertEqual(self.batches[-1][1:], (8, list(range(8, 18))))

    def test_large(self) -> None:
        """A batch has at most its size; a line that is too long is cut."""
        for number in range(10):
            self.shipper.take(event(number, "y" * 30_000))
        self.shipper.take(event(10, "z" * 100_000))
        self.clock.advance(0.3)
        while self.answers:
            self.answers.pop().callback(None)
        numbers = [number for _, _, batch in self.batches for number in batch]
        self.assertEqual(numbers, list(range(1, 11)))
        self.assertGreater(len(self.batches), 1)

    def test_flush(self) -> None:
        """At the end what waits is sent at once, and once more only."""
        self.take(1)
        done = self.shipper.flush()
        self.assertNoResult(done)
        self.answers.pop().errback(ProxyError(Kind.RELAY_UNAVAILABLE, "gone"))
        self.successResultOf(done)
        self.shipper.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_flush_while_sending(self) -> None:
        """A line that came while a batch was under way is sent before the flush is over."""
        self.take(1)
        self.clock.advance(0.3)
        self.take(2)
        done = self.shipper.flush()
        self.answers.pop().callback(None)
        self.assertNoResult(done)
        self.assertEqual(self.batches[-1][2], [2])
        self.answers.pop().callback(None)
        self.successResultOf(done)

    def test_bytes(self) -> None:
        """However many lines may wait, their bytes are bounded too: the oldest are dropped for a long one."""
        shipper = LogShipper(self.post, self.clock, most_bytes=1000)
        for number in range(3):
            shipper.take(event(number, "y" * 300))
        self.assertEqual(shipper.dropped, 1)
        self.clock.advance(0.3)
        self.assertEqual(self.batches[-1][1:], (1, [1, 2]))
        self.answers.pop().callback(None)
        for number in range(3, 5):
            shipper.take(event(number, "y" * 300))
        self.assertEqual(shipper.dropped, 1)


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
