"""Requests that a browser sends for another site's page: refused, where a page could have made the browser send them.

Any page can have a browser send requests to a proxy on the loopback, with the browser's place in the network; and by
way of a name that suddenly resolves to 127.0.0.1 (DNS rebinding) it can read the answers. A browser says where a
request comes from (Fetch Metadata; Origin, RFC 6454 section 7), and clients that are not browsers send neither. This
concerns the path form and our own pages; a browser that has us as its proxy uses the absolute form and CONNECT.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from typing import Final

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Headers, Request

_OWN_SITES: Final = frozenset({b"none", b"same-origin"})
#: The fields that only browsers send.
_OF_BROWSERS: Final = (
    b"origin",
    b"sec-fetch-site",
    b"sec-fetch-mode",
    b"sec-fetch-dest",
    b"sec-fetch-user",
    b"service-worker",
)


def check_origin(request: Request, *, page: bool, names: Collection[str]) -> None:
    """Do nothing when *request* comes from no browser, from its address bar, or from a page of the same origin.

    :param request: in path form, or for a page of our own.
    :param page: it is a GET or HEAD of a page of ours: that changes nothing and cannot be framed, so a link may lead
        to it.
    :param names: what this proxy is called, besides ``localhost`` and IP addresses; in lower case.
    :raises ProxyError: `Kind.CROSS_SITE_REQUEST`.
    """
    values = request.fields.values
    if not any(name in values for name in _OF_BROWSERS):
        return
    if b"service-worker" in values or b"serviceworker" in values.get(b"sec-fetch-dest", ()):
        # A destination that has its response say Service-Worker-Allowed would control the pages of all others for good.
        detail = "a site may have no service worker here: to a browser all sites have this proxy's address"
        raise ProxyError(Kind.CROSS_SITE_REQUEST, detail)
    authority = request.fields.get(b"host") or b""
    _check_name(authority, names)
    origins = values.get(b"origin", ())
    if any(_authority_of(origin) != _without_default_port(authority.lower()) for origin in origins):
        raise ProxyError(Kind.CROSS_SITE_REQUEST, "the Origin field names another site than the Host field")
    sites = {site.strip().lower() for site in values.get(b"sec-fetch-site", ())}
    if sites <= _OWN_SITES:
        return
    if not page or values.get(b"sec-fetch-mode", []) != [b"navigate"]:
        raise ProxyError(Kind.CROSS_SITE_REQUEST, "the Sec-Fetch-Site field says that another site's page asks")


def sandbox_for(request: Request) -> Headers:
    """The fields that take this proxy's origin away from a destination's page, if a browser opens one in path form.

    All destinations have one origin in path form, the proxy's. In a sandbox a page has an origin of its own, so its
    scripts' requests to other destinations are another site's, and refused (HTML, "sandboxed origin browsing context").
    """
    if b"sec-fetch-mode" in request.fields.values and request.target.startswith(b"/"):
        return [(b"Content-Security-Policy", b"sandbox allow-downloads allow-forms allow-modals allow-scripts")]
    return []


def _check_name(authority: bytes, names: Collection[str]) -> None:
    """The name in Host must be one that no page can make its own: else an answer would be the page's to read."""
    host = authority.rpartition(b":")[0] if authority.rpartition(b":")[2].isdigit() else authority
    name = host.decode("latin-1").lower().removesuffix(".")
    if name == "localhost" or name in names:
        return
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        detail = f"a browser sent this to the name {name[:80]!r}: if that is this proxy's, add it to host_proxy.names"
        raise ProxyError(Kind.CROSS_SITE_REQUEST, detail) from None


def _authority_of(origin: bytes) -> bytes:
    """The authority in an Origin field; that of ``null``, and of a scheme other than http, is no host's."""
    scheme, separator, authority = origin.strip().lower().partition(b"://")
    return _without_default_port(authority) if separator and scheme == b"http" else b"?"


def _without_default_port(authority: bytes) -> bytes:
    return authority.removesuffix(b":80")
