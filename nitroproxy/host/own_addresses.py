"""This machine's own addresses, from the kernel's tables."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

#: Seconds for which `OwnAddresses` uses what it has read.
_KNOWN_FOR: Final = 1.0
_LOCAL_IPV4: Final = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)\n\s+/32 host LOCAL")


def own_addresses(proc: Path = Path("/proc/self/net")) -> frozenset[str]:
    """Every address of every interface, in canonical text.

    :param proc: where the kernel's network tables are.
    :raises OSError: when they cannot be read. A missing IPv6 table is no error: the kernel then has no IPv6.
    """
    ipv4 = _LOCAL_IPV4.findall((proc / "fib_trie").read_text("ascii"))
    ipv6 = [str(IPv6Address(bytes.fromhex(line.split()[0]))) for line in _read(proc / "if_inet6").splitlines()]
    return frozenset(ipv4 + ipv6)


class OwnAddresses:
    """`own_addresses`, read again when the last reading is a second old. A new address of this machine is noticed up to
    a second late. Reading takes some 70 µs, and each tunnel to a public address needs the addresses.

    :param seconds: returns the time, in seconds.
    :param read: reads the addresses.
    """

    def __init__(self, seconds: Callable[[], float], read: Callable[[], frozenset[str]] = own_addresses) -> None:
        self._seconds = seconds
        self._read = read
        self._known: frozenset[str] = frozenset()
        self._known_until = -math.inf

    def __call__(self) -> frozenset[str]:
        """Every address of every interface, as `own_addresses` gives them."""
        now = self._seconds()
        if now >= self._known_until:
            self._known = self._read()
            self._known_until = now + _KNOWN_FOR
        return self._known


def _read(table: Path) -> str:
    try:
        return table.read_text("ascii")
    except FileNotFoundError:
        return ""
