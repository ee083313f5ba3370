"""One attempt to connect, for sockets of any family; endpoints use it.

Twisted's own is private to its endpoints, and stays between transport and protocol while they are connected.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import ILoggingContext, IProtocol, IProtocolFactory
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure


class Attempt(ClientFactory):
    """The factory for a connector. Used once.

    :ivar result: fires with *factory*'s protocol once it is connected. Cancelling it ends the attempt.
    """

    noisy = False

    def __init__(self, factory: IProtocolFactory) -> None:
        self.result: Deferred[IProtocol] = Deferred(self._cancel)
        self._factory = factory
        self._connector: Any = None

    def startedConnecting(self, connector: Any) -> None:
        self._connector = connector

    def buildProtocol(self, addr: Any) -> Any:
        try:
            protocol = self._factory.buildProtocol(addr)
        except Exception:
            self.result.errback()
            return None
        if protocol is None:
            self.result.errback(RuntimeError("internal error: no protocol for the connection"))
            return None
        return _Connected(protocol, self.result)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if not self.result.called:
            self.result.errback(reason)

    def _cancel(self, result: Deferred[IProtocol]) -> None:
        result.errback(ConnectingCancelledError(self._connector.getDestination()))
        self._connector.stopConnecting()


class _Connected(Protocol):
    """Hands the transport over to the real protocol when the connection is made."""

    def __init__(self, protocol: IProtocol, result: Deferred[IProtocol]) -> None:
        self._protocol = protocol
        self._result = result

    def logPrefix(self) -> str:
        """The real protocol's name in the log; the transport calls this before the hand-over."""
        if ILoggingContext.providedBy(self._protocol):
            return str(self._protocol.logPrefix())
        return type(self._protocol).__name__

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.protocol = self._protocol
        self._protocol.makeConnection(transport)
        if not self._result.called:
            self._result.callback(self._protocol)
