"""Proxy-Status (RFC 9209): read what a hop of ours says of a failure, and keep others from speaking in our name."""

from __future__ import annotations

import re
from typing import Final

from nitroproxy.errors import HOPS, Kind
from nitroproxy.http1.messages import Headers

_OURS: Final = re.compile(rb"(nitroproxy-[a-z]{1,16}); error=([a-z_]{1,40})")
_TOKENS: Final = frozenset(kind.proxy_status for kind in Kind)
#: A member of the list: what stands between commas that are not in a quoted string (RFC 8941 section 3.1). A string
#: without an end takes in all that follows: otherwise the search would begin anew at each quote in it, and 64 KiB of
#: them would take minutes.
_MEMBER: Final = re.compile(rb'(?:"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[^,"])+', re.DOTALL)


def read_proxy_status(value: bytes) -> tuple[str, str] | None:
    """The hop that found a failure and its error token, of a Proxy-Status field of ours; None for others'.

    Only to be asked of a response that another hop of ours has sent.
    """
    found = _OURS.fullmatch(value)
    if found is None:
        return None
    hop, token = found[1].decode("ascii"), found[2].decode("ascii")
    return (hop, token) if hop in HOPS and token in _TOKENS else None


def without_our_names(headers: Headers) -> Headers:
    """*headers* of a destination's response, without the members of Proxy-Status that look like a hop's of ours.

    The next hop takes such a member for our own word: it would log, count and show a destination's claim as that.
    """
    kept: Headers = []
    for name, value in headers:
        if name.lower() == b"proxy-status" and b"nitroproxy" in value.lower():
            members = [member.strip() for member in _MEMBER.findall(value)]
            others = b", ".join(member for member in members if b"nitroproxy" not in member.lower())
            if others:
                kept.append((name, others))
        else:
            kept.append((name, value))
    return kept
