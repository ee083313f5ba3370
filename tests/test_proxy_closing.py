"""The ways in which a client's connection ends: `nitroproxy.proxy.closing`."""

from __future__ import annotations

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.proxy.backpressure import Backpressure
from nitroproxy.proxy.closing import Closing
from nitroproxy.proxy.deadlines import Alarm, Deadlines
from tests.wire import Wire


class ClosingTests(SynchronousTestCase):
    """Each way, and its bound."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wire = Wire(Protocol())
        self.wire.registerProducer(Backpressure(lambda: None, self.clock.seconds), True)
        self.alarm = Alarm(Deadlines(self.clock))
        self.closing = Closing(self.wire, self.alarm, self.wire.abortConnection)  # type: ignore[arg-type]

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)

    def test_close(self) -> None:
        """The connection closes when what was written has left, or is aborted when that takes too long."""
        self.closing.close(5.0)
        self.assertTrue(self.wire.disconnecting)
        self.assertIsNone(self.wire.producer)
        self.pass_time(4.9)
        self.assertFalse(self.wire.aborted)
        self.pass_time(0.2)
        self.assertTrue(self.wire.aborted)

    def test_linger(self) -> None:
        """A half-close first; once it is carried out the client has two seconds to stop sending."""
        self.closing.linger(30.0)
        self.assertTrue(self.wire.half_closed)
        self.assertFalse(self.wire.disconnecting)
        self.pass_time(20)
        self.closing.response_left()
        self.pass_time(1.9)
        self.assertFalse(self.wire.aborted)
        self.pass_time(0.2)
        self.assertTrue(self.wire.aborted)

    def test_response_that_does_not_leave(self) -> None:
        """A client that does not read the last response cannot put off the end."""
        self.closing.linger(30.0)
        self.pass_time(30.1)
        self.assertTrue(self.wire.aborted)

    def test_break_off(self) -> None:
        """What has been written leaves first, then the connection is aborted, not closed."""
        self.closing.break_off()
        self.assertFalse(self.wire.aborted or self.wire.disconnecting)
        self.pass_time(0.1)
        self.assertTrue(self.wire.aborted)

    def test_half_close_of_a_tunnel(self) -> None:
        """A half-close that is none of ours starts no time."""
        self.closing.response_left()
        self.pass_time(10)
        self.assertFalse(self.wire.aborted)

    def test_over(self) -> None:
        """A connection that has ended is not aborted any more, and leaves no deadline behind."""
        for end in (lambda: self.closing.close(1.0), lambda: self.closing.linger(1.0), self.closing.break_off):
            end()
            self.alarm.end()
            self.alarm.end()
            self.pass_time(2)
            self.assertFalse(self.wire.aborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])
