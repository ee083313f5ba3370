"""What would become of a request: the enclave's and the relay's decisions, without sending anything.

`policy` prints it. The decisions are those of `target`, of the package's `policy` and of the settings, asked in the
order in which a request meets them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from nitroproxy.config.schema import Settings
from nitroproxy.errors import Kind, ProxyError, reason_of
from nitroproxy.policy import AddressGuard, Policy
from nitroproxy.target import Origin, normalize_host, parse_target

#: What stands before a URL's host, its host, and what stands behind it. Matches any text.
_HOST: Final = re.compile(r"((?:[^/:]*://)?)([^/?#:@]*)(.*)", re.DOTALL)
#: A host without a port: a name, an IPv4 address, or an IPv6 address in brackets.
_HOST_ALONE: Final = re.compile(r"[^:/?#\[\]@]+|\[[^\]]*\]")
_DEFAULT_PORT: Final = 443

#: A name to its addresses; raises OSError when it has none.
Lookup = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Verdict:
    """The outcome for one destination.

    :ivar url: the URL or host, as it was asked about.
    :ivar error: the kind of failure the client would be shown, or None when the request would go out.
    :ivar reason: why, in one sentence.
    :ivar addresses: those that would be dialled, if they were looked up.
    """

    url: str
    error: Kind | None
    reason: str
    addresses: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """For a person."""
        if self.error is None:
            return f"{self.url}  allowed: {self.reason}"
        return f"{self.url}  refused: {self.error.status} {self.error.public_name}: {self.reason}"

    def to_dict(self) -> dict[str, object]:
        """For a machine."""
        return {
            "url": self.url,
            "allowed": self.error is None,
            "error": self.error.public_name if self.error else None,
            "reason": self.reason,
            "addresses": list(self.addresses),
        }


def check_destination(text: str, settings: Settings, guard: AddressGuard, lookup: Lookup | None) -> Verdict:
    """What would become of a request for *text*.

    :param text: a URL, ``host:port`` as CONNECT names it, or a host, which means its port 443; a host may be in
        U-labels, for which a client sends A-labels.
    :param guard: the relay's address guard.
    :param lookup: resolves names; None: decide without the addresses of names.
    """
    try:
        origin = _origin(text)
        if origin.scheme == "http" and not settings.tls.allow_plaintext:
            raise ProxyError(Kind.PLAINTEXT_DESTINATION, "http destinations are off (tls.allow_plaintext)")
        policy = Policy(settings.egress.allow, settings.egress.deny)
        policy.check(origin.host, origin.port)
        rule = f"by {policy.decide(origin.host, origin.port).rule!r} of egress.allow"
        addresses = _addresses(origin.host, lookup)
        for address in addresses:
            guard.check(address)
    except ProxyError as error:
        return Verdict(text, error.kind, error.detail)
    where = f", to port {origin.port} of " + (", ".join(addresses) or "any address that the name has")
    return Verdict(text, None, rule + where, tuple(addresses))


def _origin(text: str) -> Origin:
    match = _HOST.fullmatch(text)
    assert match is not None
    start, host, rest = match.groups()
    if not host.isascii():
        try:
            host = normalize_host(host)
        except ValueError as error:
            raise ProxyError(Kind.INVALID_TARGET, str(error)) from error
    if not start and _HOST_ALONE.fullmatch(f"{host}{rest}"):
        rest += f":{_DEFAULT_PORT}"
    raw = f"{start}{host}{rest}".encode()
    target = parse_target(b"GET", raw) if start else parse_target(b"CONNECT", raw)
    if target is None:
        raise ProxyError(Kind.INVALID_TARGET, "it is neither a URL, nor host:port, nor a host")
    return target.origin


def _addresses(host: str, lookup: Lookup | None) -> Sequence[str]:
    try:
        return [str(ip_address(host))]
    except ValueError:
        pass
    if lookup is None:
        return []
    try:
        return lookup(host)
    except OSError as error:
        raise ProxyError(Kind.DNS_ERROR, f"{host} could not be resolved: {reason_of(error)}") from error
