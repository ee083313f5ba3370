"""The application in the enclave, as what is reached from outside: a port on loopback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionRefusedError, TCPTimedOutError, TimeoutError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTCP, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.sockets.listening import listens
from nitroproxy.sockets.options import set_tcp_options
from nitroproxy.telemetry.health import Check
from nitroproxy.vsock.attempt import Attempt

#: Where the application is reached, whatever it listens on besides.
LOOPBACK: Final = "127.0.0.1"


@implementer(IStreamClientEndpoint)
class ApplicationEndpoint:
    """Connects to the application's *port*; fails with `ProxyError`.

    :param timeout: seconds.
    """

    def __init__(self, reactor: IReactorTCP, port: int, timeout: float) -> None:
        self._reactor = reactor
        self._port = port
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; may be cancelled."""
        attempt = Attempt(protocolFactory)
        self._reactor.connectTCP(LOOPBACK, self._port, attempt, self._timeout)
        return attempt.result.addCallbacks(self._connected, self._failed)

    @staticmethod
    def _connected(protocol: IProtocol) -> IProtocol:
        set_tcp_options(protocol.transport)  # type: ignore[attr-defined]
        return protocol

    def _failed(self, failure: Failure) -> Failure:
        place = f"{LOOPBACK}:{self._port}"
        if failure.check(ConnectionRefusedError):
            return Failure(ProxyError(Kind.CONNECTION_REFUSED, f"the application does not listen on {place}"))
        if failure.check(TimeoutError, TCPTimedOutError):
            return Failure(ProxyError(Kind.CONNECTION_TIMEOUT, f"the application at {place} did not answer"))
        if failure.check(ConnectError, OSError):
            return Failure(ProxyError(Kind.UNREACHABLE, f"the application at {place}: {failure.getErrorMessage()}"))
        return failure


async def ingress_check(ports: Sequence[int]) -> Check:
    """Whether the application listens where the forwards lead. It is not connected to, which it would notice.

    :param ports: the forwards' ``to``.
    """
    try:
        silent = [port for port in ports if not listens(port)]
    except OSError as error:
        return Check("warn", f"whether the application listens cannot be read: {error}")
    if silent:
        return Check("fail", f"the application does not listen on {', '.join(f'{LOOPBACK}:{port}' for port in silent)}")
    return Check("pass", f"the application listens on {', '.join(map(str, ports))}")
