"""The enclave's log events at the host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.host.log_intake import LogIntake, LogRouter
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.settings import ListenerSettings
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
        return wire.take()[9:12]

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
        self.assertEqual(self.taken[-1]["cid"], 16, "a connection that tells none is the configured enclave's")

    def test_sent_again(self) -> None:
        """What has been taken is not taken twice; a new session begins anew."""
        self.post(0, line(message="0") + line(message="1"))
        self.post(0, line(message="0") + line(message="1") + line(message="2"))
        self.assertEqual(self.messages(), ["0", "1", "2"])
        self.post(0, line(message="new"), session="t")
        self.assertEqual(self.messages()[-1], "new")

    def test_two_senders(self) -> None:
        """The enclave's daemon and its init send in turn; each is counted by itself. Of many senders few are kept."""
        self.post(0, line(message="a0"), session="a")
        self.post(5, line(message="b5"), session="b")
        self.post(0, line(message="a0") + line(message="a1"), session="a")
        self.post(6, line(message="b6"), session="b")
        self.assertEqual([fields["message"] for fields in self.taken], ["a0", "b5", "a1", "b6"])
        for number in range(8):
            self.post(0, line(), session=f"s{number}")
        self.post(0, line(message="again"), session="a")
        self.assertEqual(self.taken[-1]["message"], "again")

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
        """Values are cut to size."""
        self.post(0, line(message="x" * 100_000, **{"n" * 1000: 1}))
        self.assertEqual(len(self.taken[0]["message"]), 16384)
        self.assertLess(max(map(len, self.taken[0])), 100)

    def test_refused(self) -> None:
        """No numbers, another page, too large a batch."""
        self.post(3, line())
        for first in ("x", "", "-1", "+4", "1_0", "٤", 1 << 53, "9" * 400):
            self.assertEqual(self.post(first, line()), b"400")
        for session in ("", "s" * 65, "a b"):
            self.assertEqual(self.post(0, line(), session), b"400")
        self.assertEqual(self.post(0, b"x" * (BATCH_BYTES + 1)), b"413")
        self.assertEqual(len(self.taken), 1)
        self.post(4, line())
        self.assertEqual((len(self.taken), self.counted("missed")), (2, 0), "as if none of it had come")
