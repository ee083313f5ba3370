"""Which destinations are allowed: names and ports by `Policy`, addresses by `AddressGuard`. Pure; the same code on both
sides.

The enclave checks the policy before it connects to the relay; the relay checks it again, and has the guard check every
address that a name resolves to.

A pattern is ``host:port``. The host is a name, ``*`` (any), a name whose labels may be ``*`` (one label each),
``**.name`` (any depth below *name*), an IP address or a CIDR network (IPv6 in brackets). The port is a number, a
range ``8000-8100`` or ``*``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Generic, TypeVar

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.target import normalize_host

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

_PORTS: Final = re.compile(r"(\*)|([0-9]{1,5})(?:-([0-9]{1,5}))?")
_HIGHEST_PORT: Final = 65535


class PatternError(ValueError):
    """A pattern has a wrong syntax.

    :ivar pattern: the pattern.
    :ivar reason: what is wrong with it.
    """

    def __init__(self, pattern: str, reason: str) -> None:
        super().__init__(f"{pattern!r} is not a pattern: {reason}")
        self.pattern = pattern
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Rule:
    """One parsed pattern. At most one of *network* and *labels* is set; without either it matches any host."""

    text: str
    first_port: int
    last_port: int
    network: _Network | None
    labels: tuple[str, ...]
    any_depth: bool

    def matches(self, host: str, address: _Address | None, port: int) -> bool:
        return self.first_port <= port <= self.last_port and self.matches_host(host, address)

    def matches_host(self, host: str, address: _Address | None) -> bool:
        if self.network is not None:
            return address is not None and address.version == self.network.version and address in self.network
        if not self.labels:
            return True
        if address is not None:
            return False
        labels = host.split(".")
        if self.any_depth:
            extra = len(labels) - len(self.labels)
            return extra > 0 and _labels_match(self.labels, labels[extra:])
        return len(labels) == len(self.labels) and _labels_match(self.labels, labels)

    @property
    def specificity(self) -> tuple[object, ...]:
        """Greater the fewer destinations the pattern matches; see `ByPattern`."""
        ports = -(self.last_port - self.first_port)
        if self.network is not None:
            return 2, (), self.network.prefixlen - self.network.max_prefixlen, ports
        if not self.labels:
            return 0, (), 0, ports
        return 1, tuple(label != "*" for label in reversed(self.labels)), 0, ports


def _labels_match(pattern: Sequence[str], labels: Sequence[str]) -> bool:
    return all(expected in ("*", label) for expected, label in zip(pattern, labels, strict=True))


def _parse(text: str) -> _Rule:
    host, colon, ports = text.strip().rpartition(":")
    if not colon or host.count("[") != host.count("]") or (":" in host and not host.startswith("[")):
        raise PatternError(text, f"expected host:port, for example {text.strip() or '*'}:443")
    match = _PORTS.fullmatch(ports)
    if match is None:
        raise PatternError(text, f"the port {ports!r} is not a number, a range such as 8000-8100, or *")
    first = 1 if match[1] else int(match[2])
    last = _HIGHEST_PORT if match[1] else int(match[3] or match[2])
    if not 1 <= first <= last <= _HIGHEST_PORT:
        raise PatternError(text, f"the port {ports!r} is not within 1 to 65535")
    if host == "*":
        return _Rule(f"*:{ports}", first, last, None, (), False)
    if "/" in host or host.startswith("["):
        return _network_rule(text, host, ports, first, last)
    any_depth = host.startswith("**.")
    try:
        labels = _labels(host[3:] if any_depth else host)
        address = _as_address(".".join(labels))
    except ValueError as error:
        raise PatternError(text, str(error)) from error
    if address is not None:
        return _Rule(f"{address}:{ports}", first, last, ip_network(address), (), False)
    shown = "**." * any_depth + ".".join(labels)
    return _Rule(f"{shown}:{ports}", first, last, None, labels, any_depth)


def _labels(host: str) -> tuple[str, ...]:
    """The labels of a pattern's host in their normal form. "*" is not a valid label of a name: a placeholder stands in
    for it while the host is normalized."""
    written = host.removesuffix(".").split(".")
    if any("*" in label and label != "*" for label in written):
        raise ValueError("* stands for a whole label, or as **. for any depth, at the beginning only")
    labels = normalize_host(".".join("x" if label == "*" else label for label in written)).split(".")
    if len(labels) != len(written):
        raise ValueError("its labels are not separated by full stops")
    return tuple("*" if label == "*" else usual for label, usual in zip(written, labels, strict=True))


def _network_rule(text: str, host: str, ports: str, first: int, last: int) -> _Rule:
    try:
        network = ip_network(host.removeprefix("[").removesuffix("]"))
    except ValueError as error:
        raise PatternError(text, f"the network is not valid: {error}") from error
    return _Rule(f"{network}:{ports}", first, last, network, (), False)


def _as_address(host: str) -> _Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


_Value = TypeVar("_Value")


class ByPattern(Generic[_Value]):
    """A value for each destination: that of the most specific pattern that matches it.

    The host counts first: an address or a whole name, then the longest network, then names by their labels from the
    right (a label before ``*``, more labels before fewer), then ``*``. Of patterns with one host the narrower port
    range counts.

    :param values: by pattern; ``*`` is short for ``*:*``.
    :param default: the value for destinations that no pattern matches.
    :raises PatternError: for a pattern that cannot be read, or that is there twice in different spellings.
    :ivar of: the value for a host (as `normalize_host` spells it) and a port.
    """

    def __init__(self, values: Mapping[str, _Value], default: _Value) -> None:
        rules: dict[_Rule, _Value] = {}
        for pattern, value in values.items():
            rule = replace(_parse("*:*" if pattern.strip() == "*" else pattern), text="")
            if rule in rules:
                raise PatternError(pattern, "another spelling of it is there already")
            rules[rule] = value
        self._rules = sorted(rules.items(), key=lambda item: item[0].specificity, reverse=True)
        self._default = default
        self.of: Callable[[str, int], _Value] = lru_cache(maxsize=4096)(self._find)

    @property
    def values(self) -> list[_Value]:
        """Every value that a destination may have."""
        return [self._default, *(value for _, value in self._rules)]

    def _find(self, host: str, port: int) -> _Value:
        address = _as_address(host)
        return next((value for rule, value in self._rules if rule.matches(host, address, port)), self._default)


@dataclass(frozen=True, slots=True)
class Decision:
    """The policy's decision on a destination.

    :ivar rule: the pattern that decided, or None when none allows it.
    """

    allowed: bool
    rule: str | None


@dataclass(frozen=True, eq=False)
class Policy:
    """Which names and ports are allowed; a deny rule takes precedence over every allow rule.

    :raises PatternError: for a pattern with a wrong syntax.
    """

    allow: Sequence[str]
    deny: Sequence[str] = ()
    _allow: tuple[_Rule, ...] = field(init=False, repr=False)
    _deny: tuple[_Rule, ...] = field(init=False, repr=False)
    _known: Callable[[str, int], Decision] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_allow", tuple(map(_parse, self.allow)))
        object.__setattr__(self, "_deny", tuple(map(_parse, self.deny)))
        object.__setattr__(self, "_known", lru_cache(maxsize=4096)(self._decide))

    def decide(self, host: str, port: int) -> Decision:
        """Whether *host* (in the form of `normalize_host`) and *port* are allowed, and the rule that decides."""
        return self._known(host, port)

    def _decide(self, host: str, port: int) -> Decision:
        address = _as_address(host)
        for rule in self._deny:
            if rule.matches(host, address, port):
                return Decision(False, rule.text)
        for rule in self._allow:
            if rule.matches(host, address, port):
                return Decision(True, rule.text)
        return Decision(False, None)

    def check(self, host: str, port: int) -> None:
        """Return if *host* and *port* are allowed.

        :raises ProxyError: `Kind.DESTINATION_DENIED`, naming the rule, or `Kind.DESTINATION_NOT_ALLOWED`.
        """
        decision = self.decide(host, port)
        if decision.allowed:
            return
        if decision.rule is None:
            raise ProxyError(Kind.DESTINATION_NOT_ALLOWED, f"{host}:{port} matches no rule of egress.allow")
        raise ProxyError(Kind.DESTINATION_DENIED, f"{host}:{port} matches {decision.rule!r} of egress.deny")

    def reason_against(self, host: str) -> str:
        """Why no port of *host* (in the form of `normalize_host`) is allowed; empty if one is.

        The lowest allowed port, if there is one, is the first of an allow rule or the one after a deny rule's last.
        """
        address = _as_address(host)
        firsts = {rule.first_port for rule in self._allow if rule.matches_host(host, address)}
        denied = [rule for rule in self._deny if rule.matches_host(host, address)]
        ports = firsts | {min(rule.last_port + 1, _HIGHEST_PORT) for rule in denied}
        if any(self._decide(host, port).allowed for port in ports):
            return ""
        if not firsts:
            return f"{host} matches no rule of egress.allow, with any port"
        return f"{host} matches {denied[0].text!r} of egress.deny"

    def spells(self, host: str) -> bool:
        """Whether an allow rule gives this very host, not by a wildcard."""
        labels = tuple(host.split("."))
        return any(rule.labels == labels and not rule.any_depth for rule in self._allow)

    @property
    def fingerprint(self) -> str:
        """A short digest of the rules, equal for equal rules."""
        rules = "\n".join([*sorted(rule.text for rule in self._allow), "-", *sorted(rule.text for rule in self._deny)])
        return hashlib.sha256(rules.encode()).hexdigest()[:12]


def _networks(reason: str, *networks: str) -> list[tuple[_Network, str]]:
    return [(ip_network(network), reason) for network in networks]


#: Networks that are not the public internet (IANA special-purpose address registries, RFC 6890 and its successors).
#: The first match gives the reason.
_NOT_PUBLIC: Final[tuple[tuple[_Network, str], ...]] = (
    *_networks("unspecified (RFC 1122)", "0.0.0.0/8", "::/128"),
    *_networks("loopback (RFC 1122, RFC 4291)", "127.0.0.0/8", "::1/128"),
    *_networks("link-local (RFC 3927, RFC 4291)", "169.254.0.0/16", "fe80::/10"),
    *_networks("private (RFC 1918)", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    *_networks("shared address space (RFC 6598)", "100.64.0.0/10"),
    *_networks("unique local (RFC 4193)", "fc00::/7"),
    *_networks("site-local (RFC 3879)", "fec0::/10"),
    *_networks("an IETF protocol assignment (RFC 6890)", "192.0.0.0/24"),
    *_networks("documentation (RFC 5737, RFC 3849, RFC 9637)", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),
    *_networks("documentation (RFC 5737, RFC 3849, RFC 9637)", "2001:db8::/32", "3fff::/20"),
    *_networks("benchmarking (RFC 2544, RFC 5180)", "198.18.0.0/15", "2001:2::/48"),
    *_networks("a 6to4 relay (RFC 7526)", "192.88.99.0/24"),
    *_networks("multicast (RFC 1112, RFC 4291)", "224.0.0.0/4", "ff00::/8"),
    *_networks("broadcast (RFC 919)", "255.255.255.255/32"),
    *_networks("reserved (RFC 1112)", "240.0.0.0/4"),
    *_networks("IPv4-mapped (RFC 4291)", "::ffff:0:0/96"),
    *_networks("IPv4-compatible (RFC 4291)", "::/96"),
    *_networks("IPv4-translated (RFC 2765)", "::ffff:0:0:0/96"),
    *_networks("NAT64 (RFC 6052, RFC 8215)", "64:ff9b::/96", "64:ff9b:1::/48"),
    *_networks("discard-only (RFC 6666)", "100::/64"),
    *_networks("Teredo (RFC 4380)", "2001::/32"),
    *_networks("ORCHID (RFC 4843, RFC 7343)", "2001:10::/28", "2001:20::/28"),
    *_networks("6to4 (RFC 3056)", "2002::/16"),
    *_networks("segment routing (RFC 9602)", "5f00::/16"),
)
#: What gives AWS credentials to whoever on this machine asks: EC2's metadata service, and those of ECS and EKS for
#: containers. No exemption reaches it, as a network that is exempt may be a large one.
_CREDENTIALS: Final = frozenset(
    ip_address(address)
    for address in ("169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23")
)
#: The part of IPv6 that is allocated as global unicast so far (RFC 4291 section 2.4).
_IPV6_GLOBAL: Final = IPv6Network("2000::/3")


class AddressGuard:
    """Which addresses may be dialled: public ones, and those that are exempt.

    :param exempt: CIDR networks that are allowed although internal; services that give AWS credentials never are. An
        exempt IPv4 network does not exempt IPv6 addresses that embed it.
    :param own_addresses: returns this machine's addresses; called for each check, because they may change. They are
        refused unless exempt.
    """

    def __init__(self, exempt: Sequence[str], own_addresses: Callable[[], Collection[str]]) -> None:
        self._exempt = [ip_network(network) for network in exempt]
        self._own_addresses = own_addresses
        self._known: Callable[[str], tuple[str | None, str | None]] = lru_cache(maxsize=4096)(self._look_at)

    def reason_against(self, address: str) -> str | None:
        """Why *address* may not be dialled, or None when it may."""
        reason, public = self._known(address)
        if public is not None and public in self._own_addresses():
            return "an address of this host"
        return reason

    def _look_at(self, address: str) -> tuple[str | None, str | None]:
        """The constant part of the check: why *address* may not be dialled; or, if public, its canonical text."""
        parsed = ip_address(address)
        if parsed.version == 6 and parsed.scope_id is not None:
            return "scoped to an interface", None
        mapped = parsed.ipv4_mapped if parsed.version == 6 else None
        if parsed in _CREDENTIALS or mapped in _CREDENTIALS:
            return "the instance metadata service, or another that gives credentials", None
        if any(parsed.version == network.version and parsed in network for network in self._exempt):
            return None, None
        for network, reason in _NOT_PUBLIC:
            if parsed.version == network.version and parsed in network:
                return reason, None
        if parsed.version == 6 and parsed not in _IPV6_GLOBAL:
            return "not global unicast (RFC 4291)", None
        return None, str(parsed)

    def check(self, address: str) -> None:
        """Return if *address* may be dialled.

        :raises ProxyError: `Kind.ADDRESS_DENIED`, saying why not.
        """
        reason = self.reason_against(address)
        if reason is not None:
            raise ProxyError(Kind.ADDRESS_DENIED, f"the address {address} is {reason}")
