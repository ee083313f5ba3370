"""One attempt to connect, with a reactor that connects to nothing."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.vsock.attempt import Attempt


class AttemptTests(SynchronousTestCase):
    """The results of an attempt."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.attempt = Attempt(Factory.forProtocol(Protocol))
        self.reactor.connectTCP("192.0.2.1", 443, self.attempt)
        [self.connector] = self.reactor.connectors
        self.attempt.startedConnecting(self.connector)

    def test_connected(self) -> None:
        """The result is the factory's protocol, connected, with nothing between it and the transport."""
        made = self.attempt.buildProtocol(None)
        self.assertNoResult(self.attempt.result)
        transport: Any = StringTransport()
        transport.protocol = made
        made.makeConnection(transport)
        protocol: Any = self.successResultOf(self.attempt.result)
        self.assertIs(type(protocol), Protocol)
        self.assertIs(protocol.transport, transport)
        self.assertIs(transport.protocol, protocol)

    def test_failed(self) -> None:
        """A failure is the result."""
        self.attempt.clientConnectionFailed(self.connector, Failure(ConnectionRefusedError()))
        self.failureResultOf(self.attempt.result, ConnectionRefusedError)

    def test_cancelled(self) -> None:
        """Cancelling the result ends the attempt; its failure after that is not reported."""
        self.attempt.result.cancel()
        self.failureResultOf(self.attempt.result, ConnectingCancelledError)
        self.assertTrue(self.connector.stoppedConnecting)
        self.attempt.clientConnectionFailed(self.connector, Failure(ConnectionRefusedError()))
