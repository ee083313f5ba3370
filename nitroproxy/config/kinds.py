"""What the values of the configuration may be, beyond their JSON types: addresses, ports, patterns, paths.

Pure functions and annotated types. See `nitroproxy.config.schema`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from msgspec import Meta

from nitroproxy.policy import ByPattern, Policy
from nitroproxy.target import normalize_host

#: On the host, nitro-cli takes this vsock port for the heartbeat of a starting enclave.
_HEARTBEAT_PORT: Final = 9000


#: Seconds that a response may take where nothing else is configured.
RESPONSE_TIMEOUT: Final = 300.0


@dataclass(frozen=True)
class Rule:
    """A check that a JSON Schema type cannot express.

    :ivar expected: what the value should be, to follow the word "expected".
    :ivar examine: raises ValueError, with or without a reason for a person, when the value is not that. It is called
        with each item of a list.
    """

    expected: str
    examine: Callable[[Any], object]


def _absolute_path(path: str) -> None:
    if not path.startswith("/") or "\0" in path:
        raise ValueError


def _address(text: str) -> None:
    try:
        ip_address(text)
    except ValueError:
        raise ValueError from None


def address_and_port(text: str) -> tuple[str, int]:
    """The IP address and the port of *text*, ``0.0.0.0:443`` or ``[::]:443``.

    :raises ValueError: when it is not that.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or not 1 <= int(port[:6]) <= 65535:
        raise ValueError
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("an IPv6 address stands in brackets")
    address = host.removeprefix("[").removesuffix("]") if ":" in host else host
    _address(address)
    return str(ip_address(address)), int(port)


def _loopback_and_port(text: str) -> None:
    if not ip_address(address_and_port(text)[0]).is_loopback:
        raise ValueError("whoever reaches it uses the forward as the application does")


def destination(text: str) -> tuple[str, int]:
    """The host, in its normal form, and the port of *text*, ``db.example:5432``.

    :raises ValueError: when it is not that.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or not 1 <= int(port[:6]) <= 65535:
        raise ValueError
    return normalize_host(host), int(port)


def address_url(url: str) -> None:
    parts = urlsplit(url)
    _address(parts.hostname or "")
    if url != f"http://{parts.netloc}" or "@" in url or url.endswith(":") or parts.port == 0:
        raise ValueError


def role_name(name: str) -> None:
    if not re.fullmatch(r"[0-9A-Za-z_+=,.@-]{1,64}", name) or not name.strip("."):
        raise ValueError("an ARN or an instance profile is not it" if "/" in name else "")


def sha256(digits: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError


def proxy_address(url: str) -> tuple[str, int]:
    """The host and the port of an HTTP proxy, ``http://proxy.example:3128``.

    :raises ValueError: when *url* is not that.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() != "http":
        raise ValueError("only http:// proxies are spoken to" if scheme.lower() == "https" else "")
    if "@" in rest:
        raise ValueError("credentials stand in credentials_file")
    return destination(rest.removesuffix("/"))


def _vsock_port(port: int) -> None:
    if port == _HEARTBEAT_PORT:
        raise ValueError(f"nitro-cli uses {_HEARTBEAT_PORT} for the heartbeat of a starting enclave")


def _pattern(text: str) -> None:
    Policy([text], [])


def seconds_by_pattern(given: float | dict[str, float]) -> None:
    if isinstance(given, dict):
        ByPattern(given, RESPONSE_TIMEOUT)


def by_pattern(given: dict[str, object]) -> None:
    ByPattern(given, None)


def rule(expected: str, examine: Callable[[Any], object]) -> dict[str, Any]:
    return {"rule": Rule(expected, examine)}


VsockPort = Annotated[
    int,
    Meta(
        le=4294967294,
        extra_json_schema={"not": {"const": _HEARTBEAT_PORT}},
        extra=rule(f"a vsock port other than {_HEARTBEAT_PORT}", _vsock_port),
    ),
]
AbsolutePath = Annotated[str, Meta(pattern="^/", extra=rule("an absolute path", _absolute_path))]
Interface = Annotated[
    str,
    Meta(
        extra_json_schema={"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
        extra=rule("an IP address", _address),
    ),
]
AddressAndPort = Annotated[
    str, Meta(extra=rule("an IP address and a port such as 0.0.0.0:443 or [::]:443", address_and_port))
]
LoopbackAndPort = Annotated[
    str,
    Meta(extra=rule("a loopback address and a port such as 127.0.0.1:5432 or [::1]:5432", _loopback_and_port)),
]
Destination = Annotated[str, Meta(extra=rule("a host and a port such as db.example:5432", destination))]
Patterns = Annotated[tuple[str, ...], Meta(extra=rule("a host:port pattern", _pattern))]
Networks = Annotated[tuple[str, ...], Meta(extra=rule("a network such as 10.0.0.0/8", ip_network))]
Seconds = Annotated[float, Meta(gt=0, le=86400)]
