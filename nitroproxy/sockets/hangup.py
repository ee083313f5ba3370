"""Whether the other end of a connection has gone for good, where reading does not tell.

A peer that closes its socket and one that only ends its direction both read as an end of input; and a connection that
is not being read, because something else is slow, does not tell of either. The kernel knows more:

- It reports a hang-up where the peer has closed both directions (UNIX sockets) or reset the connection (TCP), and
  refuses even an empty send to a vsock peer that reads no more (`has_hung_up`).
- A TCP peer that has closed both directions looks like one that has half-closed until something is sent to it. If it is
  on this machine, the kernel's table says whether a process still has its socket (`SocketTable`). One on another
  machine is probed; its kernel forgets a closed connection after a minute and then answers with a reset (`probe`).
"""

from __future__ import annotations

import re
import select
import socket
import struct
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address

from nitroproxy.sockets.options import socket_of

#: Seconds until the first probe of a half-closed peer and between two; how many may stay unanswered.
_PROBE_AFTER: Final = 5
_PROBES: Final = 4
#: A line of the kernel's tables about a socket without an inode: its two addresses. Between them and the inode stand
#: state, queues, timer, retransmissions, user and timeout.
_WITHOUT_INODE: Final = re.compile(rb": ([0-9A-F:]+ [0-9A-F:]+)(?: +[^ \n]+){6} +0 ")


def has_hung_up(transport: Any, *, half_closed: bool = False) -> bool:
    """Whether *transport*'s peer has gone, both ways. Asks the kernel, reads nothing and sends nothing.

    :param transport: a connection of Twisted's, with TLS or without.
    :param half_closed: this end has ended its own direction, so that a refusal to send says nothing of the peer.
    """
    connection = socket_of(transport)
    if connection is None:
        return False
    poller = select.poll()
    poller.register(connection, 0)  # A hang-up and an error are reported without being asked for.
    if poller.poll(0):
        return True
    if not half_closed:
        try:
            connection.send(b"")
        except BlockingIOError:
            return False
        except OSError:
            return True
    return False


def next_read(transport: Any) -> bytes | None:
    """What reading from *transport* would give, without reading it.

    :returns: the next byte; ``b""`` at the end of input; None when the connection has been reset.
    :raises BlockingIOError: when nothing has arrived.
    """
    connection = socket_of(transport)
    if connection is None:
        return None
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        raise
    except OSError:
        return None


def probe(transport: Any) -> None:
    """Have the kernel ask now and then whether *transport*'s peer, which has ended its direction, still knows the
    connection: if not the connection gets an error, which `has_hung_up` sees. For TCP; without effect on others."""
    connection = socket_of(transport)
    if connection is None or not isinstance(transport.getPeer(), IPv4Address | IPv6Address):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_AFTER)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)


class SocketTable:
    """The kernel's tables of TCP sockets at one moment, read when they are first needed.

    :param proc: where they are.
    """

    def __init__(self, proc: Path = Path("/proc/self/net")) -> None:
        self._proc = proc
        self._closed: dict[str, set[bytes]] = {}

    def has_closed(self, transport: Any) -> bool:
        """Whether *transport*'s peer is a socket of this machine that no process has any more.

        False where that cannot be known: another machine's, another network namespace's, no TCP, no table.
        """
        connection = socket_of(transport)
        if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        peer, own = transport.getPeer(), transport.getHost()
        if not ip_address(peer.host.partition("%")[0]).is_loopback:
            return False
        closed = self._closed_in("tcp6" if connection.family == socket.AF_INET6 else "tcp")
        # (A socket that is not in the table may have been missed while it changed: a probe finds that out.)
        return b"%b %b" % (_name(peer), _name(own)) in closed

    def _closed_in(self, name: str) -> set[bytes]:
        """The connections in the table *name* that no process has any more: read once, for however many clients."""
        closed = self._closed.get(name)
        if closed is None:
            try:
                table = (self._proc / name).read_bytes()
            except OSError:
                table = b""
            closed = self._closed[name] = set(_WITHOUT_INODE.findall(table))
        return closed


def _name(address: IPv4Address | IPv6Address) -> bytes:
    """*address* as the tables write it: 32-bit words in the machine's byte order, and the port, in hexadecimal."""
    packed = ip_address(address.host.partition("%")[0]).packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return b"%b:%04X" % (b"".join(b"%08X" % word for word in words), address.port)
