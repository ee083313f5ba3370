"""A listener that drains, and what it aborts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind
from nitroproxy.proxy.route import Dial
from tests.test_proxy_listener import OK
from tests.wire import GET, Notes, OneHop, WaitingEndpoint


class DrainTests(SynchronousTestCase):
    """Shutting down without losing a request."""

    def test_drain(self) -> None:
        """Idle connections end at once, one with a request after its response."""
        hop = OneHop()
        idle, busy = hop.client(), hop.client()
        busy.receive(GET)
        upstream = hop.endpoint.accept()
        done = hop.factory.drain(30.0)
        self.assertFalse(idle.disconnecting, "a request may be on its way")
        hop.pass_time(0.1)
        idle.settle()
        self.assertTrue(idle.closed)
        self.assertNoResult(done)
        upstream.receive(OK)
        self.assertIn(b"Connection: close", busy.take())
        busy.settle()
        self.assertTrue(self.successResultOf(done))

    def test_drain_timeout(self) -> None:
        """What does not finish in time is aborted, and the outcome says so; it is not put down to the client."""
        hop = OneHop()
        notes = hop.factory.observer = Notes()
        busy = hop.client()
        busy.receive(GET)
        hop.endpoint.accept()
        done = hop.factory.drain(1.0)
        hop.pass_time(1.1)
        self.assertFalse(self.successResultOf(done))
        self.assertTrue(busy.aborted)
        busy.settle()
        [record] = notes.records
        self.assertEqual((record.error, record.client_gone, record.status), (Kind.DRAINING, False, 0))

    def test_abort(self) -> None:
        """What is aborted before the time is over is recorded in the same way, whether the drain has begun or not."""
        for drains_before in (True, False):
            hop = OneHop()
            notes = hop.factory.observer = Notes()
            idle, busy = hop.client(), hop.client()
            busy.receive(GET)
            upstream = hop.endpoint.accept()
            done = hop.factory.drain(30.0) if drains_before else None
            hop.factory.abort()
            self.assertTrue(idle.aborted and busy.aborted and upstream.aborted)
            idle.settle()
            busy.settle()
            self.assertFalse(self.successResultOf(done or hop.factory.drain(30.0)))
            self.assertEqual([(record.error, record.client_gone) for record in notes.records], [(Kind.DRAINING, False)])

    def test_abort_holds(self) -> None:
        """What comes after an abort, as while the listening socket is being closed, is not waited for either."""
        hop = OneHop()
        hop.factory.abort()
        late = hop.client()
        late.receive(GET)
        hop.endpoint.accept()
        done = hop.factory.drain(30.0)
        hop.pass_time(0.1)
        self.assertTrue(late.aborted)
        late.settle()
        self.assertFalse(self.successResultOf(done))

    def test_abort_of_what_is_unused(self) -> None:
        """Aborting what is idle, or a tunnel in reserve, breaks nothing off; a tunnel in use is broken off."""
        for quiet, complete in ((6.0, True), (4.0, False)):
            destination = WaitingEndpoint()
            hop = OneHop(lambda request, destination=destination: Dial(lambda identity: destination))  # type: ignore[misc]
            idle, tunnelled = hop.client(), hop.client()
            tunnelled.receive(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n")
            upstream = destination.accept()
            hop.pass_time(quiet)
            done = hop.factory.drain(30.0)
            hop.factory.abort()
            for wire in (idle, tunnelled, upstream):
                self.assertTrue(wire.aborted)
                wire.settle()
            self.assertEqual(self.successResultOf(done), complete)

    def test_release(self) -> None:
        """Peers are asked to close what they keep in reserve, at once and each second until no connection is left."""
        hop = OneHop()
        asked: list[None] = []
        hop.factory.release = lambda: asked.append(None)
        busy = hop.client()
        busy.receive(GET)
        upstream = hop.endpoint.accept()
        done = hop.factory.drain(30.0)
        self.assertEqual(len(asked), 1)
        hop.pass_time(2.2)
        self.assertEqual(len(asked), 3)
        upstream.receive(OK)
        busy.take()
        busy.settle()
        self.assertTrue(self.successResultOf(done))
        hop.pass_time(5)
        self.assertEqual(len(asked), 3)

    def test_nothing_to_release(self) -> None:
        """Nobody is asked when there is no connection."""
        hop = OneHop()
        hop.factory.release = self.fail
        self.assertTrue(self.successResultOf(hop.factory.drain(30.0)))
