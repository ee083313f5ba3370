"""vsock endpoints, and the ``vsock:`` strings that describe them.

A server is ``vsock:port=5000``, with ``cid=`` and ``backlog=`` if need be; a client ``vsock:cid=16:port=5000``, with
``timeout=`` in seconds.
"""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred, execute, fail
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IListeningPort,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.vsock.address import CID_ANY, check_cid, check_port
from nitroproxy.vsock.transport import VsockConnector, VsockPort

#: Connections that may wait to be accepted. A full queue refuses at once, and the peer's kernel does not try again.
BACKLOG = 1024
_Number = TypeVar("_Number", int, float)


@implementer(IStreamServerEndpoint)
class VsockServerEndpoint:
    """Listens on vsock.

    :param port: 0 to 2^32-2; ports below 1024 need a capability.
    :param cid: the context id to listen on; enclaves listen on any.
    """

    def __init__(self, reactor: Any, port: int, cid: int = CID_ANY, backlog: int = BACKLOG) -> None:
        self._reactor = reactor
        self._port = check_port(port)
        self._cid = check_cid(cid)
        self._backlog = backlog

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen; fails with `CannotListenError`."""

        def listen() -> VsockPort:
            port = VsockPort(self._reactor, self._port, protocolFactory, self._backlog, self._cid)
            port.startListening()
            return port

        return execute(listen)


@implementer(IStreamClientEndpoint)
class VsockClientEndpoint:
    """Connects over vsock.

    :param timeout: seconds; the kernel gives up after 2 of its own accord when a VM does not answer.
    """

    def __init__(self, reactor: Any, cid: int, port: int, timeout: float = 10.0) -> None:
        self._reactor = reactor
        self._cid = check_cid(cid)
        self._port = check_port(port)
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; fails with `ConnectError`."""
        attempt = _Attempt(protocolFactory)
        try:
            VsockConnector(self._cid, self._port, attempt, self._timeout, self._reactor).connect()
        except Exception:
            return fail()
        return attempt.result


class _Attempt(ClientFactory):
    """One attempt to connect, as the Deferred of its outcome. (Twisted's own is private to its endpoints.)"""

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
            self.result.errback(RuntimeError("the factory wants no connection"))
            return None
        return _Connected(protocol, self.result)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if not self.result.called:
            self.result.errback(reason)

    def _cancel(self, result: Deferred[IProtocol]) -> None:
        result.errback(ConnectingCancelledError(self._connector.getDestination()))
        self._connector.stopConnecting()


class _Connected(Protocol):
    """Hands the transport over to the real protocol as soon as there is one."""

    def __init__(self, protocol: IProtocol, result: Deferred[IProtocol]) -> None:
        self._protocol = protocol
        self._result = result

    def logPrefix(self) -> str:
        """The real protocol's name in the log, which the transport asks for before the hand-over."""
        if ILoggingContext.providedBy(self._protocol):
            return str(self._protocol.logPrefix())
        return type(self._protocol).__name__

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.protocol = self._protocol
        self._protocol.makeConnection(transport)
        if not self._result.called:
            self._result.callback(self._protocol)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class VsockServerParser:
    """Reads ``vsock:port=…:cid=…:backlog=…``."""

    prefix = "vsock"

    def parseStreamServer(  # type: ignore[override]  # the interface says *args: the string's parts, by name
        self, reactor: Any, port: str, cid: str = "any", backlog: str = str(BACKLOG)
    ) -> VsockServerEndpoint:
        """The endpoint that the string describes.

        :raises ValueError: naming the part that is wrong.
        """
        number = CID_ANY if cid == "any" else _number("cid", cid, int)
        return VsockServerEndpoint(reactor, _number("port", port, int), number, _number("backlog", backlog, int))


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class VsockClientParser:
    """Reads ``vsock:cid=…:port=…:timeout=…``."""

    prefix = "vsock"

    def parseStreamClient(  # type: ignore[override]  # the interface says *args: the string's parts, by name
        self, reactor: Any, cid: str, port: str, timeout: str = "10"
    ) -> VsockClientEndpoint:
        """The endpoint that the string describes.

        :raises ValueError: naming the part that is wrong.
        """
        return VsockClientEndpoint(
            reactor, _number("cid", cid, int), _number("port", port, int), _number("timeout", timeout, float)
        )


def _number(name: str, text: str, kind: type[_Number]) -> _Number:
    try:
        value = kind(text)
    except ValueError:
        raise ValueError(f"vsock endpoint: {name}: expected a number, got {text!r}") from None
    return value
