"""The addresses that stand for names, one of each family for each name, and those of this machine. Pure.

IPv4 has 198.18.0.0/15, which is for benchmarks (RFC 2544) and routed nowhere; IPv6 has a unique local prefix of our
own (RFC 4193). A name's number is in the last 16 bits of both of its addresses.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

#: All that is ours. What is in there and stands for no name leads nowhere.
RANGE_V4: Final = IPv4Network("198.18.0.0/15")
RANGE_V6: Final = IPv6Network("fd00:6e69:7472:6f::/96")

#: The source of an application's connections. Loopback would not do: glibc looks for addresses of a family only where
#: the machine has one that is not loopback (AI_ADDRCONFIG).
OWN_V4: Final = IPv4Address("198.18.0.1")
OWN_V6: Final = IPv6Address("fd00:6e69:7472:6f::1")

#: Connections to these say that the way here works, and are closed: see `nitroproxy.transparent.examination`.
PROBE_V4: Final = IPv4Address("198.18.0.2")
PROBE_V6: Final = IPv6Address("fd00:6e69:7472:6f::2")

#: How many names can have an address.
MOST_NAMES: Final = 65536

_FIRST_V4: Final = int(IPv4Address("198.19.0.0"))
_PREFIX_V6: Final = RANGE_V6.network_address.packed[:12]
_PACKED: Final = {4: 4, 6: 16}


def packed_v4(number: int) -> bytes:
    """The IPv4 address of the name with that number, in network byte order."""
    return (_FIRST_V4 + number).to_bytes(4, "big")


def packed_v6(number: int) -> bytes:
    """Its IPv6 address: the prefix, and the IPv4 address."""
    return _PREFIX_V6 + packed_v4(number)


def number_of(packed: bytes) -> int | None:
    """The number of the name that *packed*, an address in network byte order, could stand for; None for all others."""
    if len(packed) == _PACKED[6]:
        if not packed.startswith(_PREFIX_V6):
            return None
        packed = packed[12:]
    number = int.from_bytes(packed, "big") - _FIRST_V4
    return number if 0 <= number < MOST_NAMES else None


def is_ours(packed: bytes) -> bool:
    """Whether *packed*, an address in network byte order, is in one of our ranges."""
    if len(packed) == _PACKED[6]:
        return packed.startswith(_PREFIX_V6)
    return IPv4Address(packed) in RANGE_V4
