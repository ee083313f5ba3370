"""Where an accepted connection was meant to go: what the kernel redirected here is asked of it (netfilter's
SO_ORIGINAL_DST), and an address that stands for a name is the name again."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Final

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Limits, Request
from nitroproxy.proxy.opening import ClientReader, PassageReader, SilentWriter
from nitroproxy.proxy.response import ResponseWriter
from nitroproxy.proxy.transport import StreamTransport
from nitroproxy.sockets.options import socket_of
from nitroproxy.transparent.names import NameTable
from nitroproxy.transparent.ranges import OWN_V4, OWN_V6, PROBE_V4, PROBE_V6, is_ours, number_of

#: The option's number at both levels (linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h), and the sizes of the
#: socket addresses that it gives.
_ORIGINAL_DESTINATION: Final = 80
_SOCKADDR_IN: Final = struct.Struct("!2xH4s8x")
_SOCKADDR_IN6: Final = struct.Struct("!2xH4x16s4x")

_PROBES: Final = frozenset({PROBE_V4.packed, PROBE_V6.packed})
_OWN: Final = frozenset({OWN_V4, OWN_V6})


def original_destination(connection: socket.socket) -> tuple[bytes, int]:
    """The address, in network byte order, and the port that *connection*'s other end has connected to.

    :raises OSError: when the kernel does not know.
    """
    if connection.family == socket.AF_INET6:
        level, form = socket.IPPROTO_IPV6, _SOCKADDR_IN6
    else:
        level, form = socket.IPPROTO_IP, _SOCKADDR_IN
    port, packed = form.unpack(connection.getsockopt(level, _ORIGINAL_DESTINATION, form.size))
    return packed, port


class _RedirectedReader(PassageReader):
    """Has the passage to where the connection was meant to go.

    :param authority_of: gives that; None: nowhere.
    """

    def __init__(self, transport: StreamTransport, authority_of: Callable[[StreamTransport], bytes | None]) -> None:
        super().__init__(transport, b"", header=False)
        self._authority_of = authority_of

    def read_head(self) -> Request | None:
        """See `PassageReader`.

        :raises ProxyError: when the connection may lead nowhere.
        """
        if not self._begun:
            authority = self._authority_of(self._transport)
            if authority is None:
                self._transport.abortConnection()
                return None
            self._authority = authority
        return super().read_head()


class Destinations:
    """Finds out where connections lead.

    :param table: the names that have an address.
    """

    def __init__(self, table: NameTable) -> None:
        self._table = table

    def opening(self, transport: StreamTransport, limits: Limits, hop: str) -> tuple[ClientReader, ResponseWriter]:
        """How connections that were redirected begin: a `nitroproxy.proxy.opening.Opening`."""
        return _RedirectedReader(transport, self.authority_of), SilentWriter(transport, hop)

    def authority_of(self, transport: StreamTransport) -> bytes | None:
        """What CONNECT would call the destination of an accepted connection; None for a probe, which has none.

        :raises ProxyError: when it may lead nowhere.
        """
        connection = socket_of(transport)
        try:
            if connection is None:
                raise OSError(None, "it is closed")
            packed, port = original_destination(connection)
        except OSError as error:
            detail = f"the kernel does not know where the connection was meant to go: {error.strerror}"
            raise ProxyError(Kind.ADDRESS_DENIED, detail) from error
        return None if packed in _PROBES else self.authority(packed, port)

    def authority(self, packed: bytes, port: int) -> bytes:
        """What CONNECT would call the destination at that address, in network byte order, and port.

        :raises ProxyError: when the address leads nowhere.
        """
        address = ip_address(packed)
        if address.is_loopback or address in _OWN:
            raise ProxyError(Kind.ADDRESS_DENIED, f"{address}:{port} is the proxy itself")
        number = number_of(packed)
        name = None if number is None else self._name_of(number)
        if name is None and is_ours(packed):
            raise ProxyError(Kind.UNKNOWN_NAME, f"{address} was never given out for a name")
        host = name or (f"[{address}]" if isinstance(address, IPv6Address) else str(address))
        return b"%b:%d" % (host.encode("ascii", "backslashreplace"), port)

    def _name_of(self, number: int) -> str | None:
        try:
            return self._table.name_of(number)
        except OSError as error:
            raise ProxyError(Kind.INTERNAL_ERROR, f"the file of names cannot be read: {error.strerror}") from error
