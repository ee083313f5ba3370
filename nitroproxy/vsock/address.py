"""The address of an AF_VSOCK socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IAddress
from zope.interface import implementer

#: Any context id, on which servers listen (VMADDR_CID_ANY; the kernel also reports it as an outgoing socket's own cid).
CID_ANY: Final = 0xFFFFFFFF
#: Highest port; VMADDR_PORT_ANY, one above, lets the kernel choose.
_HIGHEST: Final = 0xFFFFFFFE


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class VsockAddress:
    """One end of a vsock connection.

    :ivar cid: the context id: 3 is the parent of a Nitro enclave; enclaves have 4 and above.
    :ivar port: the port, 0 to 2^32-2.
    """

    cid: int
    port: int

    def __str__(self) -> str:
        return f"vsock:{'any' if self.cid == CID_ANY else self.cid}:{self.port}"


def check_cid(cid: int) -> int:
    """*cid*, if it is a context id.

    :raises ValueError: when it is not; Python would cut it to 32 bits without a word.
    """
    if not 0 <= cid <= CID_ANY:
        raise ValueError(f"expected a vsock cid from 0 to {CID_ANY}, got {cid}")
    return cid


def check_port(port: int) -> int:
    """*port*, if it is a vsock port.

    :raises ValueError: when it is not; Python would cut it to 32 bits without a word.
    """
    if not 0 <= port <= _HIGHEST:
        raise ValueError(f"expected a vsock port from 0 to {_HIGHEST}, got {port}")
    return port
