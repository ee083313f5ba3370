"""Places: how many connections are served at a time, so that no listener and no client takes those of the others.

Each listener has a number of places. Listeners that use one way out (the enclave's two) have a number of places
together, more than one of them may take, and one client address may take a part of its listener's: some are always left
for the others. A connection without a place is not refused at once: see `nitroproxy.proxy.reserve`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from ipaddress import ip_address
from math import ceil
from typing import Final

from twisted.internet.interfaces import IAddress

from nitroproxy.proxy.settings import ListenerSettings

#: What one client address may have of its listener's places.
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
        together = max(most, settings.together)
        client = None if settings.peers_are_proxies else client_of(peer)
        if len(self._holders) >= most:
            return f"all {most} connections of this listener are in use"
        if self._places.taken >= together:
            return f"all {together} connections of this proxy's listeners are in use"
        if client is not None and self._clients[client] >= ceil(most * PART):
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
