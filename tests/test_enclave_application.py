"""The application's ports in the enclave."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, NoRouteError, TCPTimedOutError, TimeoutError
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.enclave import application
from nitroproxy.enclave.application import ApplicationEndpoint, ingress_check
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.telemetry.health import Check
from tests.wire import Maker


class EndpointTests(SynchronousTestCase):
    """Connecting."""

    def fails(self, error: Exception) -> Failure:
        reactor: Any = MemoryReactorClock()
        connecting = ApplicationEndpoint(reactor, 443, 9.5).connect(Maker(Protocol))
        host, port, factory, timeout, _ = reactor.tcpClients[0]
        self.assertEqual((host, port, timeout), ("127.0.0.1", 443, 9.5))
        factory.clientConnectionFailed(None, Failure(error))
        failure: Failure = self.failureResultOf(connecting)
        return failure

    def test_failures(self) -> None:
        """They name the port; a defect stays what it is."""
        refused = self.fails(ConnectionRefusedError()).value
        assert isinstance(refused, ProxyError)
        self.assertIs(refused.kind, Kind.CONNECTION_REFUSED)
        self.assertEqual(refused.detail, "the application does not listen on 127.0.0.1:443")
        other = self.fails(NoRouteError()).value
        assert isinstance(other, ProxyError)
        self.assertIs(other.kind, Kind.UNREACHABLE)
        for error in (TimeoutError(), TCPTimedOutError()):
            late = self.fails(error).value
            assert isinstance(late, ProxyError)
            self.assertIs(late.kind, Kind.CONNECTION_TIMEOUT)
        self.assertIsInstance(self.fails(KeyError()).value, KeyError)


class CheckTests(SynchronousTestCase):
    """Its health."""

    def check(self, *ports: int) -> Check:
        checked: Check = self.successResultOf(Deferred.fromCoroutine(ingress_check(ports)))
        return checked

    def test_listens(self) -> None:
        """It passes while the application listens everywhere, and names where it does not."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            port = listener.getsockname()[1]
            self.assertEqual(self.check(port), Check("pass", f"the application listens on {port}"))
            wanted = Check("fail", "the application does not listen on 127.0.0.1:1")
            self.assertEqual(self.check(port, 1), wanted)

    def test_unreadable(self) -> None:
        """What cannot be known is no failure."""

        def fail(port: int) -> bool:
            raise PermissionError(13, "Permission denied")

        self.patch(application, "listens", fail)
        self.assertEqual(self.check(443).status, "warn")
