"""What an exchange was: `nitroproxy.proxy.record`."""

from __future__ import annotations

from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.record import End, Record


class RecordTests(SynchronousTestCase):
    """One record."""

    def setUp(self) -> None:
        self.record = Record(1.0, b"an-id", b"GET")

    def test_moved(self) -> None:
        """The bytes of bodies; once it is a tunnel, those of its sides, also while it lasts."""
        self.record.received, self.record.sent = 3, 5
        self.assertEqual(self.record.moved, (3, 5))
        client, other = SimpleNamespace(bytes=7), SimpleNamespace(bytes=11)
        self.record.sides = client, other
        client.bytes += 1
        self.assertEqual(self.record.moved, (8, 11))

    def test_failed(self) -> None:
        """The hop that found a failure is the error's, and ours where the error names none."""
        for hop, found_by in ((None, "nitroproxy-test"), ("nitroproxy-relay", "nitroproxy-relay")):
            self.record.failed(ProxyError(Kind.DNS_ERROR, "no such name", hop), "nitroproxy-test")
            found = self.record.error, self.record.detail, self.record.found_by
            self.assertEqual(found, (Kind.DNS_ERROR, "no such name", found_by))

    def test_ended_by(self) -> None:
        """A failure explains an end before anything else does, then what was noted, then whether the client left."""
        self.assertIs(self.record.ended_by, End.COMPLETE)
        self.record.client_gone = True
        self.assertIs(self.record.ended_by, End.CLIENT_GONE)
        self.record.end = End.CLIENT_STOPPED_READING
        self.assertIs(self.record.ended_by, End.CLIENT_STOPPED_READING)
        self.record.failed(ProxyError(Kind.DRAINING, "stopped"), "nitroproxy-test")
        self.assertIs(self.record.ended_by, End.FAILED)
