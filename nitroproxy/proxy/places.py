"""Places: how many connections are served at a time, so that no listener and no client takes those of the others.

Several listeners may draw on the same places (the enclave's two use one way out). Each may have a part of them, and
one client address a part of its listener's; what is left stays free for the others. A connection without a place is
not refused: see `nitroproxy.proxy.reserve`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from ipaddress import ip_address
from math import ceil
from typing import Final

from twisted.internet.interfaces import IAddress

from nitroproxy.proxy.settings import ListenerSettings

#: What one address, and one listener of several, may have of the places.
PART: Final = 0.75
#: Bits of an IPv6 address that are one client's: the host chooses the others (RFC 4291 section 2.5.4).
_V6_PREFIX: Final = 64


class Places:
    """The places of one or more listeners.

    :ivar taken: how many are, by all of them.
    """

    def __init__(self) -> None:
        self.taken = 0


class Share:
    """One listener's share of *places*."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._clients: Counter[Hashable] = Counter()
        self._holders: dict[object, Hashable] = {}

    def take(self, holder: object, peer: IAddress, settings: ListenerSettings) -> str | None:
        """Take a place for *holder*, which has none.

        :returns: why there is none for it, or None when it has one now.
        """
        most = settings.connections
        own = _part(most, settings.share)
        client = client_of(peer)
        if self._places.taken >= most:
            return f"all {most} connections are in use"
        if len(self._holders) >= own:
            return f"{own} connections are in use here, and the other {most - own} are for the other listener"
        if client is not None and self._clients[client] >= _part(own, PART):
            return f"{self._clients[client]} connections of {client} are in use, and the others are for other clients"
        self._places.taken += 1
        self._holders[holder] = client
        self._clients[client] += 1
        return None

    def has(self, holder: object) -> bool:
        """Whether *holder* has a place."""
        return holder in self._holders

    def give_back(self, holder: object) -> None:
        """Give *holder*'s place back, if it has one."""
        if holder not in self._holders:
            return
        client = self._holders.pop(holder)
        self._places.taken -= 1
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]


def _part(most: int, part: float) -> int:
    return ceil(most * part)


def client_of(address: IAddress) -> Hashable:
    """What tells the client at *address* from others: an IPv4 address or an IPv6 network.

    None where an address does not: all applications of this machine share loopback's and those of UNIX sockets, and
    on vsock the other end is one machine.
    """
    host = getattr(address, "host", None)
    if not isinstance(host, str):
        return None
    try:
        parsed = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(parsed, "ipv4_mapped", None)
    if mapped is not None:
        parsed = mapped
    if parsed.is_loopback:
        return None
    if parsed.version == 4:
        return str(parsed)
    network = int(parsed) >> (128 - _V6_PREFIX) << (128 - _V6_PREFIX)
    return f"{ip_address(network.to_bytes(16, 'big'))}/{_V6_PREFIX}"
