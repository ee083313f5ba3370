"""Gives an interface addresses, and makes every address local, by netlink(7) and rtnetlink(7).

Two messages are all that is needed of it, and an enclave's image has no `ip`. Blocks, for less than a moment.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

#: linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h.
_NEW_ADDRESS: Final = 20
_NEW_ROUTE: Final = 24
_ERROR: Final = 2
_FLAGS: Final = 0x1 | 0x4 | 0x400  # NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE
_LOCAL_TABLE: Final = 255
_SCOPE_HOST: Final = 254
_SCOPE_UNIVERSE: Final = 0
_PROTOCOL_BOOT: Final = 3
_TYPE_LOCAL: Final = 2
#: Without it an IPv6 address is of no use for a moment, until it is known that nobody else has it (IFA_F_NODAD).
_AT_ONCE: Final = 2
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_OIF, _RTA_PREFSRC = 4, 7

_HEADER: Final = struct.Struct("=IHHII")
_ADDRESS: Final = struct.Struct("=BBBBI")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE: Final = struct.Struct("=HH")
_INDEX: Final = struct.Struct("=I")
_CODE: Final = struct.Struct("=i")


def add_address(interface: int, address: IPv4Address | IPv6Address) -> None:
    """Give the interface with that index *address*, alone on its network; nothing to do if it has it.

    :raises OSError: when the kernel refuses.
    """
    head = _ADDRESS.pack(_family(address), address.max_prefixlen, _AT_ONCE, _SCOPE_UNIVERSE, interface)
    _ask(_NEW_ADDRESS, head, [(_IFA_LOCAL, address.packed), (_IFA_ADDRESS, address.packed)])


def make_all_local(interface: int, source: IPv4Address | IPv6Address) -> None:
    """Make every address of *source*'s family one of this machine's, by that interface. Connections to them come from
    *source*: by default source and destination would be the same, and a connection to a port that nobody listens on
    could connect to itself.

    :raises OSError: when the kernel refuses.
    """
    head = _ROUTE.pack(_family(source), 0, 0, 0, _LOCAL_TABLE, _PROTOCOL_BOOT, _SCOPE_HOST, _TYPE_LOCAL, 0)
    _ask(_NEW_ROUTE, head, [(_RTA_OIF, _INDEX.pack(interface)), (_RTA_PREFSRC, source.packed)])


def _family(address: IPv4Address | IPv6Address) -> int:
    return socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6


def message(kind: int, head: bytes, attributes: Iterable[tuple[int, bytes]]) -> bytes:
    """A request of that type."""
    body = head
    for name, value in attributes:
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), name) + value
        body += bytes(-len(body) % 4)
    return _HEADER.pack(_HEADER.size + len(body), kind, _FLAGS, 1, 0) + body


def _ask(kind: int, head: bytes, attributes: Iterable[tuple[int, bytes]]) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(5)
        kernel.sendto(message(kind, head, attributes), (0, 0))
        answer = kernel.recv(4096)
    _, kind, *_ = _HEADER.unpack_from(answer)
    (code,) = _CODE.unpack_from(answer, _HEADER.size)
    if kind != _ERROR:
        raise OSError(errno.EPROTO, os.strerror(errno.EPROTO))
    if code not in (0, -errno.EEXIST):
        raise OSError(-code, os.strerror(-code))
