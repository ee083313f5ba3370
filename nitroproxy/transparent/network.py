"""Makes this machine's network so that every TCP connection of an application comes to one listener of ours.

Every address is made local; netfilter redirects what is connected to, unless it is loopback or one of our own two
addresses, and the kernel remembers where each connection was meant to go (`nitroproxy.transparent.destination`).
Listeners on all addresses would not do: they collide with the application's own on the same port.

For an enclave, whose loopback is all the network there is, or a network namespace like one. The enclave's init calls
`set_up` once, as root. Nothing here needs a kernel newer than 4.14, which enclaves have, with netfilter's NAT built in
and no nf_tables; where a kernel has nf_tables only, the other iptables is used.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from nitroproxy.transparent.netlink import add_address, make_all_local
from nitroproxy.transparent.ranges import OWN_V4, OWN_V6

#: The sockets, by the names under which the daemon gets them.
LISTENER_V4: Final = "transparent-ipv4"
LISTENER_V6: Final = "transparent-ipv6"
DNS_UDP: Final = "dns-udp"
DNS_TCP: Final = "dns-tcp"

#: Connections that may wait to be accepted, also while the daemon restarts.
BACKLOG: Final = 4096
_DNS: Final = ("127.0.0.1", 53)
#: Where iptables is, if PATH does not say so.
_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"
#: Seconds for one of its programs.
_TIMEOUT: Final = 20
#: netdevice(7): SIOCGIFFLAGS, and struct ifreq with flags.
_GET_FLAGS: Final = 0x8913
_REQUEST: Final = struct.Struct("16sh14x")
_UP: Final = 1

#: What is set below /proc/sys: 28,232 short connections to one name within a minute would take all ports otherwise.
_SETTINGS: Final = {
    "net/ipv4/tcp_tw_reuse": "1",
    "net/ipv4/ip_local_port_range": "16384 65535",
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/core/somaxconn": str(BACKLOG),
    "net/netfilter/nf_conntrack_tcp_timeout_time_wait": "10",
}
#: Connections that netfilter remembers, those that have ended a moment ago included. Only the first network namespace
#: may set it; an enclave has no other.
_REMEMBERED: Final = ("net/netfilter/nf_conntrack_max", 131072)

RESOLV_CONF: Final = "# By nitroproxy enclave-init: enclave.transparent\nnameserver 127.0.0.1\nsearch .\n"


class NetworkError(Exception):
    """The network cannot be made so; the message says what is missing, and what to do."""


@dataclass(frozen=True)
class Family:
    """What differs between IPv4 and IPv6.

    :ivar tools: the programs that take rules, in the order in which they are tried.
    """

    name: str
    listener: str
    loopback: str
    loopback_network: str
    own: IPv4Address | IPv6Address
    tools: tuple[str, ...]

    def rules(self, port: int) -> str:
        """The rules, for iptables-restore, that give all connections to the listener on *port*."""
        return (
            "*nat\n:NITROPROXY - [0:0]\n-A OUTPUT -p tcp -j NITROPROXY\n"
            f"-A NITROPROXY -d {self.loopback_network} -j RETURN\n"
            f"-A NITROPROXY -d {self.own} -j RETURN\n"
            f"-A NITROPROXY -p tcp -j REDIRECT --to-ports {port}\nCOMMIT\n"
        )


_V4: Final = Family(
    "IPv4",
    LISTENER_V4,
    "127.0.0.1",
    "127.0.0.0/8",
    OWN_V4,
    ("iptables-nft-restore", "iptables-legacy-restore", "iptables-restore"),
)
_V6: Final = Family(
    "IPv6",
    LISTENER_V6,
    "::1",
    "::1/128",
    OWN_V6,
    ("ip6tables-nft-restore", "ip6tables-legacy-restore", "ip6tables-restore"),
)


@dataclass(frozen=True)
class Network:
    """A network that has been made.

    :ivar sockets: the listening sockets, and those of the DNS, by name; they stay open for as long as this machine
        runs, whatever becomes of the daemon.
    :ivar notes: what is not as it should be, and no reason not to start.
    """

    sockets: Mapping[str, socket.socket]
    notes: tuple[str, ...]


def set_up(*, dns: bool, environ: Mapping[str, str], root: Path = Path("/")) -> Network:
    """Make the network. The loopback interface is up.

    :param dns: whether names are answered, so that /etc/resolv.conf is to lead here.
    :param environ: has the PATH.
    :param root: what /proc and /etc are below.
    :raises NetworkError: when that is impossible.
    """
    others = interfaces_up() - {"lo"}
    if others:
        raise NetworkError(
            f"{', '.join(sorted(others))} is up: its networks bypass the proxy, so lo must be the only interface that "
            "is (a container: --network none)"
        )
    families = [_V4, _V6] if (root / "proc/net/if_inet6").exists() else [_V4]
    sockets: dict[str, socket.socket] = {}
    for family in families:
        if family is _V6:
            _enable_ipv6(root / "proc/sys/net/ipv6/conf/lo/disable_ipv6")
        _make_local(family)
        sockets[family.listener] = _listener(family)
        load_rules(family, sockets[family.listener].getsockname()[1], environ)
    notes = _set_kernel(root / "proc/sys")
    if dns:
        sockets.update(_dns_sockets())
        write_resolv_conf(root / "etc/resolv.conf")
    if len(families) == 1:
        notes.append("the kernel has no IPv6: applications have IPv4 only")
    return Network(sockets, tuple(notes))


def interfaces_up() -> set[str]:
    """The network interfaces that are up."""
    up = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(any_socket, _GET_FLAGS, _REQUEST.pack(name.encode(), 0))
            except OSError:
                continue  # It has gone.
            if _REQUEST.unpack(answer)[1] & _UP:
                up.add(name)
    return up


def _enable_ipv6(switch: Path) -> None:
    """A container without a network has it off."""
    try:
        if switch.read_text().strip() != "0":
            switch.write_text("0")
    except OSError as error:
        raise NetworkError(f"{switch} cannot be set to 0: {error.strerror}") from error


def _make_local(family: Family) -> None:
    try:
        interface = socket.if_nametoindex("lo")
        add_address(interface, family.own)
        make_all_local(interface, family.own)
    except OSError as error:
        reason = f"{error.strerror}; run as root" if isinstance(error, PermissionError) else error.strerror
        raise NetworkError(f"{family.name} addresses cannot be made local: {reason}") from error


def _listener(family: Family) -> socket.socket:
    kind = socket.AF_INET6 if family is _V6 else socket.AF_INET
    listening = socket.socket(kind, socket.SOCK_STREAM)
    if kind == socket.AF_INET6:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listening.bind((family.loopback, 0))
    listening.listen(BACKLOG)
    listening.setblocking(False)  # Of all processes that have it.
    return listening


def load_rules(family: Family, port: int, environ: Mapping[str, str]) -> str:
    """Load the rules by the first of the programs that can; which one did.

    :raises NetworkError: none can; says why not, of each.
    """
    path = f"{environ.get('PATH', os.defpath)}:{_SBIN}"
    reasons = []
    for tool in family.tools:
        program = shutil.which(tool, path=path)
        if program is None:
            reasons.append(f"{tool} is not in the image")
            continue
        try:
            subprocess.run(  # noqa: S603  # no shell; the image's own program
                [program, "--noflush"],
                input=family.rules(port),
                text=True,
                capture_output=True,
                timeout=_TIMEOUT,
                check=True,
                env={"PATH": path},
            )
        except subprocess.CalledProcessError as error:
            said = [line for line in (error.stderr or error.stdout).splitlines() if line.strip()]
            reasons.append(f"{tool}: {said[0] if said else f'it ended with {error.returncode}'}")
        except (OSError, subprocess.TimeoutExpired) as error:
            reasons.append(f"{tool}: {getattr(error, 'strerror', None) or 'it does not end'}")
        else:
            return tool
    raise NetworkError(
        f"no rule can be set that redirects {family.name} connections: {'; '.join(reasons)}. The image needs iptables "
        f"and the kernel netfilter's NAT for {family.name}; without them use enclave.proxy_port"
    )


def _set_kernel(sys: Path) -> list[str]:
    """Set what is below *sys*; gives what is not as it should be.

    :raises NetworkError: when one cannot be set.
    """
    for name, value in _SETTINGS.items():
        place = sys / name
        try:
            if place.read_text().split() != value.split():
                place.write_text(value)
        except OSError as error:
            raise NetworkError(f"{place} cannot be set to {value}: {error.strerror}") from error
    name, least = _REMEMBERED
    try:
        if int((sys / name).read_text()) < least:
            (sys / name).write_text(str(least))
    except OSError as error:
        return [f"{sys / name} is less than {least} and cannot be set: {error.strerror}"]
    return []


def _dns_sockets() -> Mapping[str, socket.socket]:
    made = {
        DNS_UDP: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        DNS_TCP: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    }
    try:
        for one in made.values():
            one.bind(_DNS)
        made[DNS_TCP].listen(BACKLOG)
    except OSError as error:
        raise NetworkError(f"DNS cannot be served at {_DNS[0]}:{_DNS[1]}: {error.strerror}") from error
    return made


def write_resolv_conf(path: Path) -> None:
    """Have programs ask the daemon for names.

    :raises NetworkError: the file cannot be written.
    """
    attempts: list[Callable[[], object]] = [lambda: None, path.unlink]
    reason: OSError | None = None
    for prepare in attempts:
        try:
            prepare()
            path.write_text(RESOLV_CONF)
        except OSError as error:  # A link to a file that is not there, for one.
            reason = reason or error
        else:
            return
    assert reason is not None
    raise NetworkError(f"{path} cannot be written: {reason.strerror}") from reason
