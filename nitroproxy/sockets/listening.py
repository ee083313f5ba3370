"""Whether a process of this network namespace listens on a TCP port of the loopback, by the kernel's tables."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

#: States in the kernel's table.
_LISTEN: Final = b"0A"
#: Addresses at which a listener is reached by 127.0.0.1.
_REACHED: Final = frozenset(
    map(ip_address, ("0.0.0.0", "127.0.0.1", "::", "::ffff:0.0.0.0", "::ffff:127.0.0.1"))  # noqa: S104
)


def listens(port: int, proc: Path = Path("/proc/self/net")) -> bool:
    """Whether a connection to 127.0.0.1:*port* would be accepted.

    A listener on ``::`` counts, although it can be told to take IPv6 alone, which the table does not show.

    :param proc: where the tables are.
    :raises OSError: when they cannot be read.
    """
    return any(_listens_in(proc / name, port) for name in ("tcp", "tcp6") if (proc / name).exists())


def _listens_in(table: Path, port: int) -> bool:
    wanted = b"%04X" % port
    with table.open("rb") as lines:
        next(lines, None)
        for line in lines:
            _, local, _, state, *_ = line.split(None, 4)
            if state != _LISTEN:
                return False  # Listeners come first, connections after them, however many there are.
            address, _, found = local.partition(b":")
            if found == wanted and _address_of(address) in _REACHED:
                return True
    return False


def _address_of(text: bytes) -> IPv4Address | IPv6Address:
    """The address that the tables write as 32-bit words in the machine's byte order, in hexadecimal."""
    raw = bytes.fromhex(text.decode("ascii"))
    step = -1 if sys.byteorder == "little" else 1
    return ip_address(b"".join(raw[begin : begin + 4][::step] for begin in range(0, len(raw), 4)))
