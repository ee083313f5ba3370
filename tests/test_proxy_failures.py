"""What is not a `ProxyError` is logged once and becomes 500: `nitroproxy.proxy.failures`."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.failures import as_proxy_error
from nitroproxy.proxy.fetch import fetch
from nitroproxy.proxy.route import Dial
from tests.wire import GET, OneHop, WaitingEndpoint


class FailureTests(SynchronousTestCase):
    """The function on its own."""

    def test_proxy_error(self) -> None:
        """A failure that a client can be given stays what it is, and is not logged."""
        error = ProxyError(Kind.DNS_ERROR, "no such name")
        self.assertIs(as_proxy_error(Failure(error)), error)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_defect(self) -> None:
        """Any other exception is an internal error that names its type, not its text, and its traceback is logged."""
        error = as_proxy_error(Failure(ZeroDivisionError("secret")))
        self.assertEqual((error.kind, error.detail), (Kind.INTERNAL_ERROR, "unexpected ZeroDivisionError"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class EngineTests(SynchronousTestCase):
    """Wherever something connects, a defect is logged once and answered."""

    def test_exchange(self) -> None:
        """A forwarded request whose endpoint raises is 500."""
        hop = OneHop()
        client = hop.client()
        client.receive(GET)
        hop.endpoint.refuse(ZeroDivisionError())
        self.assertIn(b"internal_error", client.take())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_connect(self) -> None:
        """So is a CONNECT."""
        destination = WaitingEndpoint()
        hop = OneHop(lambda request: Dial(lambda identity: destination))
        client = hop.client()
        client.receive(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n")
        destination.refuse(ZeroDivisionError())
        self.assertIn(b"internal_error", client.take())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_fetch(self) -> None:
        """A page that another hop is asked for fails with a `ProxyError`, as documented."""
        hop = OneHop()
        fetching = Deferred.fromCoroutine(fetch(hop.pool, "next", b"/health", hop.deadlines, 1.0, 10))
        hop.endpoint.refuse(ZeroDivisionError())
        self.assertIs(self.failureResultOf(fetching, ProxyError).value.kind, Kind.INTERNAL_ERROR)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
