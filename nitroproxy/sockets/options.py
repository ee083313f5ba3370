"""Options of TCP connections, accepted and dialled."""

from __future__ import annotations

import socket
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address

#: Seconds of silence after which TCP asks whether the peer is still there, between two such probes, and how many may
#: stay unanswered: in all less than the 350 seconds after which AWS's NAT forgets a silent connection.
_KEEPALIVE: Final = (
    (socket.TCP_KEEPIDLE, 120),
    (socket.TCP_KEEPINTVL, 30),
    (socket.TCP_KEEPCNT, 4),
)
#: Bytes that the kernel takes of a connection and cannot send yet, at most. By itself it takes some 4 MB for a peer
#: that reads slowly, and what a connection holds, and whether its peer still reads, could not be told from here.
_UNSENT: Final = 128 * 1024


def set_tcp_options(transport: Any) -> None:
    """Have a TCP connection send small segments at once, hold no more unsent bytes than it needs, and find out when its
    peer has vanished; no others are changed.

    Without TCP_NODELAY a response in two small segments waits for the delayed acknowledgement of the first (40 ms).

    :param transport: an accepted or a dialled connection of Twisted's.
    """
    connection = socket_of(transport)
    if connection is not None and isinstance(transport.getPeer(), IPv4Address | IPv6Address):
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
        for option, value in _KEEPALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def socket_of(transport: Any) -> socket.socket | None:
    """The socket below *transport*, also if that is TLS; None once it is closed, and where there is none."""
    return getattr(getattr(transport, "transport", transport), "socket", None)
