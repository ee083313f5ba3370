"""The enclave's log events at the host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import process_time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.host.log_intake import LOG_CONNECTIONS, LogIntake, LogRouter
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.telemetry.logs import text_line
from nitroproxy.telemetry.shipping import BATCH_BYTES
from nitroproxy.vsock.address import VsockAddress
from tests.wire import OneHop, Wire


def line(**fields: object) -> bytes:
    """An event as a line."""
    event = {"time": "2026-01-02T03:04:05.678Z", "level": "info", "event": "log", "message": "m"}
    return json.dumps({**event, **fields}).encode() + b"\n"


class IntakeTests(SynchronousTestCase):
    """Batches posted to the log listener."""

    def setUp(self) -> None:
        self.taken: list[Mapping[str, Any]] = []
        self.intake = LogIntake(16, self.taken.append)

    def post(self, first: object, lines: bytes, session: str = "s", peer: VsockAddress | None = None) -> bytes:
        factory = DownstreamFactory("nitroproxy-logs", LogRouter(self.intake), ListenerSettings(), OneHop().deadlines)
        protocol = factory.buildProtocol(None)
        assert protocol is not None
        wire = Wire(protocol, peer)
        head = f"POST /logs HTTP/1.1\r\nHost: a\r\nLog-Session: {session}\r\nLog-First: {first}\r\n"
        wire.receive(head.encode() + b"Content-Length: %d\r\n\r\n" % len(lines) + lines)
        self.answer = wire.take()
        return self.answer[9:12]

    def messages(self) -> list[object]:
        return [fields["message"] for fields in self.taken]

    def counted(self, outcome: str) -> float:
        [family] = self.intake.collect()
        return next(sample.value for sample in family.samples if sample.labels["outcome"] == outcome)

    def test_taken(self) -> None:
        """Events go to the host's log with the CID of the connection, whatever they say theirs is."""
        self.assertEqual(self.post(0, line(cid=3, extra=1.5), peer=VsockAddress(17, 1)), b"204")
        [fields] = self.taken
        self.assertEqual((fields["cid"], fields["extra"], fields["message"]), (17, 1.5, "m"))
        self.post(1, line())
        self.assertEqual(self.taken[-1]["cid"], 16, "a connection without one is the configured enclave's")

    def test_line_breaks(self) -> None:
        """A post of nothing but line breaks holds the host up for a moment, not for a second; each counts."""
        began = process_time()
        self.assertEqual(self.post(0, b"\n" * BATCH_BYTES), b"204")
        self.assertLess(process_time() - began, 0.3)
        self.assertEqual(self.counted("malformed"), BATCH_BYTES)
        self.post(BATCH_BYTES, line())
        self.assertEqual((self.messages(), self.counted("missed")), (["m"], 0))

    def test_sent_again(self) -> None:
        """What has been taken is not taken twice; a new session begins anew."""
        self.post(0, line(message="0") + line(message="1"))
        self.post(0, line(message="0") + line(message="1") + line(message="2"))
        self.assertEqual(self.messages(), ["0", "1", "2"])
        self.post(0, line(message="new"), session="t")
        self.assertEqual(self.messages()[-1], "new")

    def test_sessions(self) -> None:
        """Several processes of an enclave post in turn, each under numbers of its own; of many sessions the oldest is
        forgotten."""
        for _ in range(2):
            self.post(0, line(message="a"), session="a")
            self.post(0, line(message="b"), session="b")
        self.assertEqual(self.messages(), ["a", "b"])
        for number in range(LOG_CONNECTIONS - 1):
            self.post(0, line(message="x"), session=f"s{number}")
        self.taken.clear()
        self.post(0, line(message="b"), session="b")
        self.post(0, line(message="a again"), session="a")
        self.assertEqual(self.messages(), ["a again"])
        self.assertEqual(self.counted("missed"), 0)

    def test_missed(self) -> None:
        """Numbers that are skipped are lines that were lost."""
        self.post(5, line())
        self.assertEqual(self.counted("missed"), 0, "before the first that this daemon saw it cannot know")
        self.post(10, line())
        self.assertEqual((self.counted("missed"), self.counted("taken")), (4, 2))

    def test_malformed(self) -> None:
        """Lines that are no events are counted and left out; the others are taken."""
        many = {str(i): i for i in range(100)}
        lines = b"nonsense\n[]\n{}\n\xff\n" + line(nested={}) + line(time=1) + line(**many) + line(message="good")
        self.assertEqual(self.post(0, lines), b"204")
        self.assertEqual((self.messages(), self.counted("malformed")), (["good"], 7))

    def test_forged(self) -> None:
        """Where the host's log has time and level, the enclave cannot write what it likes (S18)."""
        forged = "2026-01-02T03:04:05.678Z info  nitroproxy-host GET a.example:443 200\n"
        lines = [line(time=time) for time in ("T", forged, "2026-01-02T03:04:05.678Z\n", "٢026-01-02T03:04:05.678Z")]
        lines += [line(level=level) for level in ("INFO", "log", f"info {forged}", "info\n", 6)]
        self.post(0, b"".join(lines))
        self.assertEqual((self.messages(), self.counted("malformed")), ([], len(lines)))

    def test_big_numbers(self) -> None:
        """A number that other readers of the log could not hold is malformed, however long it is."""
        numbers = [b"9" * digits for digits in (16, 400, 5000)] + [b"-1" + b"0" * 16, b"1e999"]
        self.post(0, b"".join(line(count=0).replace(b": 0", b": " + number) for number in numbers) + line(count=-5))
        self.assertEqual((self.counted("malformed"), self.counted("taken")), (len(numbers), 1))

    def test_cut(self) -> None:
        """Names and values are cut to size, in bytes; a line longer than an enclave of ours sends is malformed (K4)."""
        self.post(0, line(message="é" * 5000, **{"n" * 1000: 1}) + line(message="x" * 30_000))
        self.post(2, line(message="x" * 40_000))
        self.assertEqual([len(fields["message"].encode()) for fields in self.taken], [10_000, 16384])
        self.assertLess(max(map(len, self.taken[0])), 100)
        self.assertEqual((self.counted("taken"), self.counted("malformed")), (2, 1))

    def test_tracebacks(self) -> None:
        """However its tracebacks are made of lines, one post makes few lines of the host's log; an honest traceback is
        kept (K4)."""
        honest = "Traceback (most recent call last):\n" + "  File\n" * 20 + "ValueError: why\n"
        self.post(0, line(failure=honest))
        self.assertEqual(self.taken[0]["failure"].splitlines(), honest.splitlines())
        for failure in ("\n" * 10_000, "x\n" * 10_000, "\r" * 10_000, "x\u2028" * 3000, "x\x0bx\x0c" * 1000):
            self.taken.clear()
            batch = b""
            while len(batch) < BATCH_BYTES - 40_000:
                batch += line(failure=failure)
            self.assertEqual(self.post(1, batch, session=f"s{len(failure)}{ord(failure[0])}"), b"204")
            self.assertEqual(len(self.taken), batch.count(b"\n"))
            text = b"".join(text_line(fields) for fields in self.taken)
            self.assertLess(text.count(b"\n"), 512 + len(self.taken) + 1)
            if "x" in failure and len(self.taken) > 512 // 64:
                self.assertEqual(self.taken[-1]["failure_lines_left_out"], 64)

    def test_far_ahead(self) -> None:
        """A number far ahead is not counted as so many lost lines (K4)."""
        self.post(0, line())
        self.post((1 << 53) - 1, line())
        self.assertLessEqual(self.counted("missed"), 1_000_000)
        self.assertEqual(self.counted("taken"), 2)

    def test_refused(self) -> None:
        """No numbers, another page, too large a batch."""
        self.post(3, line())
        for first in ("x", "", "-1", "+4", "1_0", "٤", 1 << 53, "9" * 400):
            self.assertEqual(self.post(first, line()), b"400")
        for session in ("", "s" * 65, "a b"):
            self.assertEqual(self.post(0, line(), session), b"400")
        self.assertIn(b'"detail": "the Log-Session field is not', self.answer)
        self.post("x", line())
        self.assertIn(b'"detail": "the Log-First field is not', self.answer)
        self.assertEqual(self.post(0, b"x" * (BATCH_BYTES + 1)), b"413")
        self.assertEqual(len(self.taken), 1)
        self.post(4, line())
        self.assertEqual((len(self.taken), self.counted("missed")), (2, 0), "as if none of it had come")
