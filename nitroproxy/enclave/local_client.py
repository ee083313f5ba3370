"""Which requests the private pages of the enclave's loopback answer: those of a program in the enclave, made directly.

Programs that fetch URLs for others (server-side request forgery), reverse proxies and browsers leave traces in a
request. The metadata service of EC2 judges by one of them (X-Forwarded-For); here every known one counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from twisted.web.server import Request

from nitroproxy.errors import Kind, ProxyError

#: Fields of browsers and of proxies, in lower case: these, and those that begin so.
_FIELDS: Final = frozenset({b"origin", b"referer", b"service-worker", b"forwarded", b"via", b"x-real-ip"})
_BEGINNINGS: Final = (b"sec-", b"x-forwarded-", b"proxy-")


def check_direct(request: Request) -> None:
    """Do nothing when *request* shows no trace of a browser or a proxy, and names the loopback as its host.

    A page that has its name resolve to 127.0.0.1 (DNS rebinding) would be of another host.

    :raises ProxyError: `Kind.PAGE_DENIED`.
    """
    names = (name.lower() for name, _ in request.requestHeaders.getAllRawHeaders())
    trace = next((name for name in names if name in _FIELDS or name.startswith(_BEGINNINGS)), None)
    if trace is not None:
        shown = trace[:64].decode("ascii", "backslashreplace")
        raise ProxyError(Kind.PAGE_DENIED, f"the field {shown} is of a browser or a proxy: ask directly")
    hosts: Iterable[bytes] = request.requestHeaders.getRawHeaders(b"host") or [b""]
    if not all(map(_is_loopback, hosts)):
        raise ProxyError(Kind.PAGE_DENIED, "the Host field does not name the loopback: ask 127.0.0.1")


def _is_loopback(authority: bytes) -> bool:
    text = authority.decode("latin-1")
    host, _, port = text.rpartition(":")
    name = host if port.isdecimal() else text
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
