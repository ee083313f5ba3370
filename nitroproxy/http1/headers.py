"""What a proxy passes on of a header section, and what it adds (RFC 9110 section 7.6)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from nitroproxy.http1.messages import Headers

#: Fields about one connection, never passed on (RFC 9110 section 7.6.1, RFC 9112 sections 6.1 and 7.1.2; RFC
#: 4559 section 6 for Proxy-Support).
#: Proxy-Authenticate and Proxy-Authorization are between the client and its next proxy, so they stop here.
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"proxy-support",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

#: Fields that a Connection field may not remove: the message means something else without them, and every hop must see
#: what logs a connection in, because each pins the connection (`proxy.pinned`).
_ESSENTIAL: Final = frozenset(
    {b"content-length", b"host", b"expect", b"cache-control", b"authorization", b"www-authenticate", b"persistent-auth"}
)


def members(values: Iterable[bytes]) -> list[bytes]:
    """The members of a list-based field, given its field lines' values in order; empty ones do not count
    (RFC 9110 sections 5.6.1 and 5.3)."""
    found = (member.strip(b" \t") for value in values for member in value.split(b","))
    return [member for member in found if member]


def end_to_end(
    headers: Sequence[tuple[bytes, bytes]],
    connection_options: frozenset[bytes],
    dropped: frozenset[bytes] = HOP_BY_HOP,
) -> Headers:
    """*headers* without the hop-by-hop ones and those that Connection names, order and spelling kept.

    :param dropped: names in lower case that are always left out.
    """
    if connection_options:
        dropped |= connection_options - _ESSENTIAL
    return [header for header in headers if header[0].lower() not in dropped]


def names_in_via(via: Sequence[bytes], prefix: bytes) -> Iterator[bytes]:
    """The received-by names that begin with *prefix*, in the values of a message's Via fields (RFC 9110 section
    7.6.3)."""
    members = (member.split() for value in via if prefix in value for member in value.split(b","))
    return (parts[1] for parts in members if len(parts) > 1 and parts[1].startswith(prefix))
