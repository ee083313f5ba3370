"""Redirects of requests in path form: their Location made to lead through this proxy again (RFC 9110 section 10.2.2).

A client that asked for ``/https://example.org/a`` would follow an absolute Location past the proxy, and a relative one
to a page of the proxy's own.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urljoin

from nitroproxy.errors import ProxyError
from nitroproxy.target import parse_target

_LONGEST: Final = 65536


def through_proxy(location: bytes, method: bytes, target: bytes) -> bytes:
    """*location* as a path of this proxy's; unchanged where it is no http(s) URL.

    :param method: of the request that is answered.
    :param target: its request-target, in path form.
    """
    try:
        asked = parse_target(method, target)
        if asked is None or len(location) > _LONGEST:
            return location
        url = urljoin(asked.url.decode("ascii"), location.decode("ascii").strip())
    except (ProxyError, ValueError):
        return location  # Whatever it is, the client is the one to make something of it.
    return b"/" + url.encode("ascii") if url.lower().startswith(("https://", "http://")) else location
