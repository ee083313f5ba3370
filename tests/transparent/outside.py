"""The host's network namespace, and in it the destinations that this project brings.

usage: python -m tests.transparent.outside DIRECTORY, in namespaces of its own for network and mounts. Writes the
certificates, prints "ready" when it serves, and ends when its standard input does.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol, connectionDone
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

from nitroproxy.demo.certificates import ThrowAwayAuthority
from nitroproxy.demo.upstream_site import UpstreamRoot, UpstreamSite, httpbin_resource
from nitroproxy.enclave.init_system import bring_loopback_up
from nitroproxy.transparent.answers import Answer, Code, Outcome
from nitroproxy.transparent.dns_server import respond
from nitroproxy.transparent.netlink import add_address

#: Destinations; all of them are 127.0.0.1 there.
NAMES: Final = (
    *("upstream.test", "denied.test", "db.test", "cache.test", "maria.test", "mail.test", "git.test", "web.test"),
)
#: An address that is a destination as it is.
LITERAL: Final = "192.0.2.10"
HTTPS: Final = 443
#: Says hello, then what it is told. The next one says at which address it was reached, and ends.
ECHO: Final = 7000
WHERE: Final = 7001

reactor: Any = global_reactor


def address_of(number: int) -> str:
    """Where the name n<number>.many.test is."""
    return f"127.1.{number >> 8}.{number & 255}"


class Echo(Protocol):
    """Speaks first."""

    def connectionMade(self) -> None:
        self.transport.write(b"hello\n")  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]


class Where(Protocol):
    """Says at which address it was reached, and ends."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(transport.getHost().host.encode() + b"\n")
        transport.loseConnection()


class Names(DatagramProtocol):
    """The host's name server: numbered names have addresses of their own."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """See `DatagramProtocol`."""

        def answer(name: bytes, kind: int) -> Answer:
            label = name.lower().removesuffix(b".many.test").removeprefix(b"n")
            if not label.isdigit():
                return Answer(Code.NXDOMAIN, Outcome.DENIED)
            packed = socket.inet_aton(address_of(int(label))) if kind == 1 else b""
            return Answer(Code.NOERROR, Outcome.ANSWERED, packed)

        response = respond(datagram, answer, lambda *told: None)
        if response is not None:
            self.transport.write(response, addr)  # type: ignore[union-attr]


class UntilEnd(Protocol):
    """Ends the process with its standard input."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        reactor.stop()


def _mount(directory: Path, name: str, text: str) -> None:
    path = directory / f"outside-{name}"
    path.write_text(text)
    subprocess.run(["mount", "--bind", str(path), f"/etc/{name}"], check=True)


def main(directory: Path) -> None:
    """Serve."""
    bring_loopback_up()
    add_address(socket.if_nametoindex("lo"), ip_address(LITERAL))
    _mount(directory, "hosts", "".join(f"127.0.0.1 {name}\n" for name in ("localhost", *NAMES)))
    _mount(directory, "resolv.conf", "nameserver 127.0.0.1\n")
    authority = ThrowAwayAuthority()
    (directory / "ca.pem").write_bytes(authority.pem)
    every: list[x509.GeneralName] = [x509.DNSName(name) for name in NAMES]
    identity = authority.issue([*every, x509.IPAddress(ip_address(LITERAL))])
    private, mark, certificate = identity.pem.partition(b"-----BEGIN CERT")
    (directory / "server.key").write_bytes(private)
    (directory / "server.pem").write_bytes(mark + certificate)
    options = PrivateCertificate.loadPEM(identity.pem).options()
    site = UpstreamSite(UpstreamRoot(httpbin_resource(reactor), dict), lambda *request: None)
    reactor.listenUDP(53, Names())
    SSL4ServerEndpoint(reactor, HTTPS, options, backlog=1024).listen(site)
    TCP4ServerEndpoint(reactor, ECHO, backlog=4096).listen(Factory.forProtocol(Echo))
    TCP4ServerEndpoint(reactor, WHERE, backlog=4096).listen(Factory.forProtocol(Where))
    StandardIO(UntilEnd())
    reactor.callWhenRunning(lambda: print("ready", flush=True))
    reactor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
