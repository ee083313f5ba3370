"""What the engine needs of a transport, whatever the socket's family, TLS or not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IPullProducer, IPushProducer
from twisted.internet.protocol import Factory


#: Seconds of silence after which TCP asks whether the peer is still there, between two such probes, and how many may
#: stay unanswered: in all less than the 350 seconds after which AWS's NAT forgets a silent connection.
_KEEPALIVE: Final = (
    (socket.TCP_KEEPIDLE, 120),
    (socket.TCP_KEEPINTVL, 30),
    (socket.TCP_KEEPCNT, 4),
)


class StreamTransport(Protocol):
    """A stream with flow control both ways, half-close and abort: Twisted's TCP, UNIX, vsock and TLS transports."""

    disconnecting: bool
    #: Most bytes of one read, and what may wait to be written before the producer is paused.
    bufferSize: int

    def write(self, data: bytes) -> None: ...
    def writeSequence(self, iovec: Iterable[bytes]) -> None: ...
    def loseConnection(self) -> None: ...
    def loseWriteConnection(self) -> None: ...
    def abortConnection(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def stopProducing(self) -> None: ...
    def registerProducer(self, producer: IPushProducer | IPullProducer | StreamTransport, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def getPeer(self) -> IAddress: ...
    def getHost(self) -> IAddress: ...


def factory_of(make: Callable[[], Any]) -> Any:
    """A factory for one connection of ours, whose coming and going is not worth a log line."""
    factory = Factory.forProtocol(make)
    factory.noisy = False
    return factory


def set_tcp_options(transport: Any) -> None:
    """Have a TCP connection send small segments at once and find out when its peer has vanished; no others are changed.

    Without TCP_NODELAY a response in two small segments waits for the delayed acknowledgement of the first (40 ms).

    :param transport: an accepted or a dialled connection of Twisted's.
    """
    connection = socket_of(transport)
    if connection is not None and isinstance(transport.getPeer(), IPv4Address | IPv6Address):
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        for option, value in _KEEPALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def socket_of(transport: Any) -> socket.socket | None:
    """The socket below *transport*, also if that is TLS; None once it is closed, and where there is none."""
    return getattr(getattr(transport, "transport", transport), "socket", None)
