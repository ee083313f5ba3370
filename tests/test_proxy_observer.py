"""Who watches a listener: `nitroproxy.proxy.observer`."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind
from nitroproxy.proxy.observer import Observer, Observers
from nitroproxy.proxy.record import Record

PEER = IPv4Address("TCP", "192.0.2.1", 4321)


class ObserverTests(SynchronousTestCase):
    """Those who watch."""

    def test_all_are_called(self) -> None:
        """Several observers stand for one: each is called, in order, with the same arguments."""
        calls: list[tuple[object, ...]] = []

        class Noting(Observer):
            def __init__(self, name: str) -> None:
                self.name = name

            def opened(self) -> None:
                calls.append((self.name, "opened"))

            def closed(self) -> None:
                calls.append((self.name, "closed"))

            def refused(self, kind: Kind, peer: object) -> None:
                calls.append((self.name, kind, peer))

            def began(self, record: Record) -> None:
                calls.append((self.name, "began", record))

            def switched(self, record: Record) -> None:
                calls.append((self.name, "switched", record))

            def ended(self, record: Record, now: float) -> None:
                calls.append((self.name, "ended", record, now))

        record = Record(0.0, b"an-id")
        for observer in (Observers(Noting("a"), Noting("b")), Observer()):
            observer.opened()
            observer.closed()
            observer.refused(Kind.DRAINING, PEER)
            observer.began(record)
            observer.switched(record)
            observer.ended(record, 2.0)
        self.assertEqual([call[0] for call in calls], ["a", "b"] * 6)
        self.assertEqual([call[1:] for call in calls[::2]], [call[1:] for call in calls[1::2]])
        self.assertEqual(calls[4], ("a", Kind.DRAINING, PEER))
        self.assertEqual(calls[10], ("a", "ended", record, 2.0))
