"""Backpressure on a client connection: `nitroproxy.proxy.backpressure`."""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from nitroproxy.proxy.backpressure import Backpressure, Throttle


@implementer(IPushProducer)
class Source:
    """Remembers what was asked of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        """Pause."""
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        """Resume."""
        self.calls.append("resume")

    def stopProducing(self) -> None:
        """Stop."""
        self.calls.append("stop")


class BackpressureTests(SynchronousTestCase):
    """How fast a client reads."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.changes = 0
        self.pace = Backpressure(self.changed, self.clock.seconds)

    def changed(self) -> None:
        self.changes += 1

    def test_follows(self) -> None:
        """The source is paused and resumed with the client, and let go of when another is followed."""
        source = Source()
        self.pace.follow(source)
        self.pace.pauseProducing()
        self.pace.resumeProducing()
        self.pace.follow(None)
        self.pace.pauseProducing()
        self.pace.stopProducing()
        self.assertEqual(source.calls, ["pause", "resume"])

    def test_full_already(self) -> None:
        """A source that is followed while the client is full is paused at once."""
        source = Source()
        self.pace.pauseProducing()
        self.pace.follow(source)
        self.assertEqual(source.calls, ["pause"])

    def test_change(self) -> None:
        """Only catching up is reported; when it last changed is known either way."""
        self.clock.advance(5)
        self.pace.pauseProducing()
        self.assertEqual((self.pace.full, self.pace.changed, self.changes), (True, 5, 0))
        self.clock.advance(2)
        self.pace.resumeProducing()
        self.assertEqual((self.pace.full, self.pace.changed, self.changes), (False, 7, 1))

    def test_interface(self) -> None:
        """Both are push producers."""
        verifyObject(IPushProducer, self.pace)
        verifyObject(IPushProducer, Throttle(self.changed, self.clock.seconds))


class ThrottleTests(SynchronousTestCase):
    """Whether a client is read."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.seen: list[bool] = []
        self.throttle = Throttle(lambda: self.seen.append(self.throttle.full), self.clock.seconds)

    def test_held_for(self) -> None:
        """The seconds in which the client was held back add up, those until now included."""
        for _ in range(2):
            self.throttle.pauseProducing()
            self.clock.advance(3)
            self.throttle.resumeProducing()
            self.clock.advance(10)
        self.throttle.pauseProducing()
        self.clock.advance(1)
        self.assertEqual(self.throttle.held_for(self.clock.seconds()), 7)
        self.assertEqual(self.seen, [True, False, True, False, True])

    def test_paused_twice(self) -> None:
        """A second pause does not begin the time again; a second resume changes nothing."""
        self.throttle.pauseProducing()
        self.clock.advance(3)
        self.throttle.pauseProducing()
        self.clock.advance(3)
        self.throttle.resumeProducing()
        self.clock.advance(3)
        self.throttle.resumeProducing()
        self.assertEqual((self.throttle.held_for(self.clock.seconds()), self.throttle.changed), (6, 6))

    def test_release(self) -> None:
        """When the connection that held the client back is gone, it is held back no longer, without a report."""
        self.throttle.pauseProducing()
        self.clock.advance(4)
        self.throttle.release()
        self.assertFalse(self.throttle.full)
        self.assertEqual(self.throttle.held_for(100.0), 4)
        self.assertEqual(self.seen, [True])
