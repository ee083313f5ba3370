"""Parses a request-target into its destination, once: only the parsed form is used after that.

Pure. Anything that two parsers could read differently is refused (RFC 3986, RFC 9112 section 3.2): userinfo,
backslashes, percent-encoded hosts, odd spellings of addresses. A request-target is ASCII, so an internationalized host
is in A-labels there; `normalize_host` takes U-labels too, for the policy and the command line, which people write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple, NoReturn

import idna

from nitroproxy.errors import Kind, ProxyError

#: The schemes of destinations, and the HTTP scheme that carries each. WebSocket is an upgrade of HTTP (RFC 6455).
_SCHEMES: Final = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
#: Scheme, authority, and what follows it, in the path form and in the absolute form.
_PATH_FORM: Final = re.compile(rb"/(https?|wss?):/{1,2}(?!/)([^/?#]*)(.*)", re.DOTALL | re.IGNORECASE)
#: The path form of clients that percent-encode each colon of a path, although none needs it (RFC 3986 section 3.3), as
#: pip and boto3 do: scheme, host, port, and what follows.
_ENCODED_PATH_FORM: Final = re.compile(
    rb"/(https?|wss?)%3A/{1,2}(?!/)([^/?#:%]*)(?:%3A([0-9]*))?((?:[/?#].*)?)", re.DOTALL | re.IGNORECASE
)
#: What starts like the path form and is not: a mistake, not a page of ours.
_NEARLY_PATH_FORM: Final = re.compile(rb"/+(?:https?|wss?)(?::|%3A)", re.IGNORECASE)
_ABSOLUTE_FORM: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)
_AUTHORITY: Final = re.compile(rb"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]*))?")
_PATH: Final = re.compile(rb"[!$-\[\]_a-z|~^`{}\"<>]*")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LONGEST_NAME: Final = 253
_MOST_PORT_DIGITS: Final = 5
_HIGHEST_PORT: Final = 65535

#: Why a target with other bytes than ASCII is refused (RFC 9112 section 3.2), and what its sender has to do.
NOT_ASCII: Final = (
    "the request target is not ASCII: percent-encode the UTF-8 bytes of path and query, as in %E4%B8%AD, and send an "
    "internationalized host in A-labels (xn--)"
)


@dataclass(frozen=True)
class Origin:
    """The origin of a destination (RFC 9110 section 4.3.1).

    :ivar scheme: ``http`` or ``https``.
    :ivar host: a DNS name in lower case A-labels without a trailing dot, or an IP address in its canonical text.
    :ivar port: 1 to 65535.
    """

    scheme: str
    host: str
    port: int

    @cached_property
    def _host_bytes(self) -> bytes:
        return f"[{self.host}]".encode("ascii") if ":" in self.host else self.host.encode("ascii")

    @cached_property
    def authority(self) -> bytes:
        """``host:port``, the authority form of CONNECT (RFC 9112 section 3.2.3)."""
        return b"%b:%d" % (self._host_bytes, self.port)

    @cached_property
    def host_field(self) -> bytes:
        """The Host field: without the scheme's default port (RFC 9110 section 7.2)."""
        return self._host_bytes if self.port == _DEFAULT_PORTS[self.scheme] else self.authority

    @cached_property
    def url(self) -> bytes:
        """``scheme://host:port``, without the scheme's default port."""
        return b"%b://%b" % (self.scheme.encode("ascii"), self.host_field)


class Target(NamedTuple):
    """A request's destination, and its path there; a tuple like `nitroproxy.proxy.route.Forward`.

    :ivar path: path and query as sent, empty for CONNECT, ``*`` for OPTIONS of the server itself.
    """

    origin: Origin
    path: bytes

    @property
    def url(self) -> bytes:
        """The absolute form (RFC 9112 section 3.2.2); ``*`` is written as an empty path (section 3.2.4)."""
        return self.origin.url if self.path == b"*" else self.origin.url + self.path


def parse_target(method: bytes, raw: bytes) -> Target | None:
    """The destination that a request line names, or None when it names a page of the proxy itself.

    :param method: CONNECT takes the authority form, all others take the path form or the absolute form.
    :raises ProxyError: `Kind.INVALID_TARGET`, saying what is wrong, without the query string.
    """
    if not raw.isascii():
        _refuse(NOT_ASCII)
    if method == b"CONNECT":
        return _connect_target(raw)
    match = _PATH_FORM.fullmatch(raw) or _ABSOLUTE_FORM.fullmatch(raw)
    if match is None:
        if encoded := _ENCODED_PATH_FORM.fullmatch(raw):
            scheme, host, port, path = encoded.groups()
            return _target(method, scheme, host if port is None else b"%b:%b" % (host, port), path)
        if _NEARLY_PATH_FORM.match(raw):
            _refuse("a URL in the path must be /https://host/path")
        if raw.startswith(b"/") or (method == b"OPTIONS" and raw == b"*"):
            return None
        _refuse("it is neither a path nor an http(s) URL")
    scheme, authority, path = match.groups()
    return _target(method, scheme, authority, path)


def _target(method: bytes, scheme: bytes, authority: bytes, path: bytes) -> Target:
    origin = _origin(scheme.lower(), authority)
    if _PATH.fullmatch(path) is None:
        if b"#" in path:
            _refuse("a fragment ('#') is never sent")
        _refuse("the path or query holds a backslash, a space or a control character")
    if not path and method == b"OPTIONS":
        path = b"*"
    elif not path.startswith(b"/"):
        path = b"/" + path
    return Target(origin, path)


def _connect_target(raw: bytes) -> Target:
    host, port = _host_and_port(raw)
    if port is None:
        _refuse("CONNECT needs host:port")
    return Target(Origin("https", host, port), b"")


@lru_cache(maxsize=1024)
def _origin(scheme: bytes, authority: bytes) -> Origin:
    name = _SCHEMES.get(scheme)
    if name is None:
        _refuse(f"the scheme {scheme.decode('ascii')!r} is not http, https, ws or wss")
    host, port = _host_and_port(authority)
    return Origin(name, host, _DEFAULT_PORTS[name] if port is None else port)


@lru_cache(maxsize=1024)
def _host_and_port(authority: bytes) -> tuple[str, int | None]:
    if b"@" in authority:
        _refuse("a user name or password in the URL is refused")
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        _refuse("it is not host or host:port")
    port = None if match[2] is None else _port(match[2])
    try:
        return normalize_host(match[1].decode("ascii")), port
    except ValueError as error:
        _refuse(str(error))


def _port(digits: bytes) -> int:
    if not 1 <= len(digits) <= _MOST_PORT_DIGITS or not 1 <= int(digits) <= _HIGHEST_PORT:
        _refuse("the port is not a number from 1 to 65535")
    return int(digits)


@lru_cache(maxsize=4096)
def normalize_host(host: str) -> str:
    """The normal form of *host*: a name in lower case A-labels, or an IP address in canonical text without brackets.

    U-labels are encoded (IDNA 2008 with the mapping of UTS 46), A-labels are checked.

    :raises ValueError: saying why it is neither. An IPv4 address has four decimal parts; every other spelling that
        some resolver reads as one (``127.1``, ``0x7f.1``, ``2130706433``) is refused, by the rule that a name whose
        last label is numeric must be such an address (WHATWG URL, "ends in a number").
    """
    if host.startswith("["):
        return _ipv6(host)
    if not host:
        raise ValueError("the host is empty")
    name = (host if host.isascii() else _a_labels(host)).lower()
    labels = name.split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1] or (labels[-2] if len(labels) > 1 else "")):
        return _ipv4(name)
    labels = name.removesuffix(".").split(".")
    name = ".".join(labels)
    if len(name) > _LONGEST_NAME or any(_LABEL.fullmatch(label) is None for label in labels):
        raise ValueError(f"the host {host!a} is not a DNS name")
    for label in labels:
        if label.startswith("xn--"):
            _check_a_label(label)
    return name


def _a_labels(host: str) -> str:
    """*host*, which has U-labels, in A-labels."""
    try:
        name = idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(f"the host is not a valid internationalized name: {error}") from error
    if _NUMERIC_LABEL.fullmatch(name.rstrip(".").rpartition(".")[2]):
        raise ValueError("an IP address is written in ASCII digits")
    return name


def _check_a_label(label: str) -> None:
    try:
        idna.ulabel(label)
    except idna.IDNAError as error:
        raise ValueError(f"the label {label!a} is not valid: {error}") from error


def _ipv4(name: str) -> str:
    try:
        return str(IPv4Address(name))
    except ValueError as error:
        raise ValueError(f"{name!a} is not an IPv4 address in its usual form") from error


def _ipv6(host: str) -> str:
    inner = host[1:-1]
    try:
        if not host.endswith("]") or "%" in inner:
            raise ValueError("a zone or no bracket")
        return str(IPv6Address(inner))
    except ValueError as error:
        raise ValueError(f"{host!a} is not an IPv6 address") from error


def _refuse(why: str) -> NoReturn:
    raise ProxyError(Kind.INVALID_TARGET, why)
