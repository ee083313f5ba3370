"""Keys whose values are valid one by one but not together. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final

from nitroproxy.config.kinds import address_and_port, proxy_address
from nitroproxy.config.schema import Settings
from nitroproxy.transparent.ranges import RANGE_V4, RANGE_V6

#: Who has the vsock CIDs below 4 (vsock(7); 3 is Nitro's own): for the error that refuses one of them for an enclave.
_RESERVED_CIDS: Final = {
    1: "CID 1 is this machine's own loopback",
    2: "CID 2 is the hypervisor's host",
    3: "CID 3 is the parent instance, where the host daemon runs; the enclave's is the one that it is started with, as "
    "in nitro-cli run-enclave --enclave-cid 16, and 0 lets the hypervisor choose it",
}
#: The longest path of a UNIX socket in bytes (sun_path, less its final NUL; unix(7)).
_UNIX_PATH_BYTES: Final = 107
_DNS_PORT: Final = 53


@dataclass(frozen=True)
class Contradiction:
    """Keys whose values are valid one by one but not together.

    :ivar keys: all that are involved; the first is the one to change.
    :ivar reason: why its value cannot be, for a person; empty if *expected* says it all.
    """

    keys: tuple[str, ...]
    expected: str
    reason: str = ""


def contradictions(settings: Settings, debug_mode: bool) -> Iterator[Contradiction]:
    """The keys of *settings* that contradict each other."""
    transport, enclave, egress = settings.transport, settings.enclave, settings.egress
    if 0 < enclave.cid < 4 and (enclave.cid == 3 or enclave.cid != transport.parent_cid):
        yield Contradiction(
            ("enclave.cid", "transport.parent_cid"),
            "an integer 4..4294967294, 0 for an automatic one, or 1 or 2 if that is also transport.parent_cid",
            _RESERVED_CIDS[enclave.cid],
        )
    if settings.logging.port == egress.port:
        yield Contradiction(("logging.port", "egress.port"), "another port than egress.port")
    gateway = settings.host_proxy
    if gateway.health_port == gateway.port and _overlap(gateway.interface, gateway.health_interface):
        yield Contradiction(("host_proxy.health_port", "host_proxy.port"), "another port than host_proxy.port")
    if egress.upstream_proxy is not None:
        host, port = proxy_address(egress.upstream_proxy.url)
        if port == gateway.port and host in ("localhost", "127.0.0.1", "::1", gateway.interface):
            yield Contradiction(("egress.upstream_proxy", "host_proxy.port"), "another proxy than the gateway itself")
    if transport.kind != "vsock":
        ingress = settings.ingress
        port = max(enclave.port, egress.port, ingress.port, *(forward.vsock for forward in ingress.forwards))
        longest = f"/enclave/{port}.sock" if transport.kind == "unix" else f"/vsock.sock_{port}"
        room = _UNIX_PATH_BYTES - len(longest)
        if len(transport.directory.encode()) > room:
            ports = ("enclave.port", "egress.port", "ingress.port", "ingress.forwards")
            keys = ("transport.directory", "transport.kind", *ports)
            yield Contradiction(keys, f"at most {room} bytes, as a UNIX socket's path is limited")
    yield from _of_enclave_forwards(settings)
    yield from _of_forwards(settings)
    yield from _of_attestation(settings)
    yield from _of_transparent(settings)
    yield from _of_credentials(settings)
    if not settings.tls.verify_certificates and not debug_mode:
        yield Contradiction(("tls.verify_certificates", "DEBUG_MODE"), "true, as DEBUG_MODE is not true")


def _of_credentials(settings: Settings) -> Iterator[Contradiction]:
    """SDKs ask for credentials on the loopback only."""
    enclave = settings.enclave
    interface = ip_address(enclave.proxy_interface)
    if settings.credentials.role is None:
        return
    if not enclave.proxy_port:
        keys = ("credentials.role", "enclave.proxy_port")
        yield Contradiction(keys, "null, as enclave.proxy_port is 0", "the listener for applications serves them")
    elif not (interface.is_loopback or interface.is_unspecified):
        keys = ("credentials.role", "enclave.proxy_interface")
        yield Contradiction(keys, "null, as enclave.proxy_interface is no loopback address", "SDKs ask there only")


def _overlap(one: str, other: str) -> bool:
    """Whether two listeners at these addresses cannot have the same port."""
    addresses = ip_address(one), ip_address(other)
    return addresses[0] == addresses[1] or any(address.is_unspecified for address in addresses)


def _of_enclave_forwards(settings: Settings) -> Iterator[Contradiction]:
    """What is wrong between the enclave's forwards, and between them and the proxy."""
    enclave = settings.enclave
    seen: set[tuple[str, int]] = set()
    for forward in enclave.forwards:
        listen = address_and_port(forward.listen)
        if listen[1] == enclave.proxy_port and _overlap(listen[0], enclave.proxy_interface):
            expected = f"addresses other than ours, and {forward.listen} is enclave.proxy_port"
            yield Contradiction(("enclave.forwards", "enclave.proxy_port", "enclave.proxy_interface"), expected)
        if listen in seen:
            yield Contradiction(("enclave.forwards",), f"an address for each forward, and {forward.listen} has two")
        seen.add(listen)


def _of_forwards(settings: Settings) -> Iterator[Contradiction]:
    """What is wrong between the ingress forwards, and between them and our own ports."""
    enclave, host, forwards = settings.enclave, settings.host_proxy, settings.ingress.forwards
    own_vsock = {
        enclave.port: "enclave.port",
        settings.egress.port: "egress.port",
        settings.logging.port: "logging.port",
        settings.ingress.port: "ingress.port",
    }
    own_ports = {enclave.proxy_port: "the proxy's own (enclave.proxy_port)"}
    own_ports |= {address_and_port(forward.listen)[1]: "of enclave.forwards" for forward in enclave.forwards}
    own_listen = [(host.interface, host.port, "host_proxy.port")]
    if host.health_port:
        own_listen.append((host.health_interface, host.health_port, "host_proxy.health_port"))
    if settings.ingress.tcp_port:
        own_listen.append((settings.ingress.interface, settings.ingress.tcp_port, "ingress.tcp_port"))
    seen_vsock: set[int] = set()
    seen_listen: set[tuple[str, int]] = set()
    for forward in forwards:
        listen = address_and_port(forward.listen)
        if (owner := own_vsock.get(forward.vsock)) is not None:
            yield _in_ingress(f"vsock ports other than ours, and {forward.vsock} is {owner}", owner)
        if forward.vsock in seen_vsock:
            yield _in_ingress(f"a vsock port for each forward, and {forward.vsock} has two")
        for interface, port, owner in own_listen:
            if port == listen[1] and _overlap(interface, listen[0]):
                yield _in_ingress(f"addresses other than ours, and {forward.listen} is {owner}", owner)
        if listen in seen_listen:
            yield _in_ingress(f"an address for each forward, and {forward.listen} has two")
        if (owner := own_ports.get(forward.to, "")) != "":
            yield _in_ingress(
                f"ports of the application, and {forward.to} is {owner}: whoever reaches the host would use it as the "
                "enclave does",
                "enclave.proxy_port",
                "enclave.forwards",
            )
        seen_vsock.add(forward.vsock)
        seen_listen.add(listen)


def _in_ingress(expected: str, *others: str) -> Contradiction:
    return Contradiction(("ingress.forwards", *others), expected)


def _of_attestation(settings: Settings) -> Iterator[Contradiction]:
    """What is wrong with the attested listener."""
    attestation, ingress, enclave, host = settings.attestation, settings.ingress, settings.enclave, settings.host_proxy
    if attestation.emulated and attestation.device is None:
        keys = ("attestation.emulated", "attestation.device")
        yield Contradiction(keys, "false, as attestation.device is null")
    if ingress.port == enclave.port:
        yield Contradiction(("ingress.port", "enclave.port"), "another port than enclave.port")
    if ingress.application is not None and ingress.application == enclave.proxy_port:
        why = "through the proxy's own port whoever reaches the host would use it as the enclave does"
        yield Contradiction(("ingress.application", "enclave.proxy_port"), "another port than enclave.proxy_port", why)
    if ingress.application in {address_and_port(forward.listen)[1] for forward in enclave.forwards}:
        keys = ("ingress.application", "enclave.forwards")
        yield Contradiction(keys, "another port than those of enclave.forwards", "they lead out of the enclave")
    for key in ("application", "client_ca_file"):
        if getattr(ingress, key) is not None and (attestation.device is None or not ingress.port):
            involved = (f"ingress.{key}", "attestation.device", "ingress.port")
            yield Contradiction(involved, "null, as there is no attested listener (attestation.device, ingress.port)")
    if ingress.tcp_port and not ingress.port:
        yield Contradiction(("ingress.tcp_port", "ingress.port"), "0, as ingress.port is 0")
    for name, interface, port in (
        ("port", host.interface, host.port),
        ("health_port", host.health_interface, host.health_port),
    ):
        if ingress.tcp_port and ingress.tcp_port == port and _overlap(ingress.interface, interface):
            key = f"host_proxy.{name}"
            yield Contradiction(("ingress.tcp_port", key), f"another port than {key}")


def _of_transparent(settings: Settings) -> Iterator[Contradiction]:
    enclave = settings.enclave
    if not enclave.transparent.enabled:
        return
    for text in settings.egress.allow_addresses:
        network = ip_network(text)
        for ours in (RANGE_V4, RANGE_V6):
            if network.version == ours.version and network.overlaps(ours):
                yield Contradiction(
                    ("egress.allow_addresses", "enclave.transparent"),
                    f"networks that do not overlap {ours}",
                    f"with enclave.transparent its addresses stand for names, and {text} overlaps it",
                )
    if enclave.transparent.dns and enclave.proxy_port == _DNS_PORT:
        reason = "with enclave.transparent DNS is served there"
        yield Contradiction(("enclave.proxy_port", "enclave.transparent"), f"another port than {_DNS_PORT}", reason)
