"""vsock endpoints, and the ``vsock:`` strings that describe them.

A server is ``vsock:port=5000``, optionally with ``cid=`` and ``backlog=``; a client is ``vsock:cid=16:port=5000``,
optionally with ``timeout=`` in seconds.
"""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred, execute, fail
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer

from nitroproxy.vsock.address import CID_ANY, check_cid, check_port
from nitroproxy.vsock.attempt import Attempt
from nitroproxy.vsock.transport import VsockConnector, VsockPort

#: Connections that may wait to be accepted. A full queue refuses at once; the peer's kernel does not retry.
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

    :param timeout: seconds; the kernel itself gives up after 2 seconds if a VM does not answer.
    """

    def __init__(self, reactor: Any, cid: int, port: int, timeout: float = 10.0) -> None:
        self._reactor = reactor
        self._cid = check_cid(cid)
        self._port = check_port(port)
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; fails with `ConnectError`."""
        attempt = Attempt(protocolFactory)
        try:
            VsockConnector(self._cid, self._port, attempt, self._timeout, self._reactor).connect()
        except Exception:
            return fail()
        return attempt.result


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
