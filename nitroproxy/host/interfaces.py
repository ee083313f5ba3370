"""This machine's own addresses, from the kernel's tables."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

_LOCAL_IPV4: Final = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)\n\s+/32 host LOCAL")


def own_addresses(proc: Path = Path("/proc/self/net")) -> frozenset[str]:
    """Every address of every interface, in canonical text.

    :param proc: where the kernel's network tables are.
    :raises OSError: when they cannot be read; a kernel without IPv6 has no table of that and no address.
    """
    ipv4 = _LOCAL_IPV4.findall((proc / "fib_trie").read_text("ascii"))
    ipv6 = [str(IPv6Address(bytes.fromhex(line.split()[0]))) for line in _read(proc / "if_inet6").splitlines()]
    return frozenset(ipv4 + ipv6)


def _read(table: Path) -> str:
    try:
        return table.read_text("ascii")
    except FileNotFoundError:
        return ""
