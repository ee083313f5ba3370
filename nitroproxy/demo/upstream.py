"""`python -m nitroproxy.demo.upstream`: httpbin behind TLS 1.3 on this machine, for development only.

It makes a throw-away CA, serves the site of `upstream_site` with a certificate for localhost, and opens one more
listener for each kind of certificate that a proxy must refuse; these count what they receive and must receive nothing.
When all listen it writes ``upstream.json`` (`upstream_file`) into its directory, and removes it at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from twisted.internet import task
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IReactorFromThreads,
    IReactorSSL,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, PrivateCertificate, TLSVersion

from nitroproxy.demo.certificates import MAKE_BAD, ServerIdentity, ThrowAwayAuthority
from nitroproxy.demo.upstream_file import UPSTREAM_FILE, LocalUpstream, write_upstream_file
from nitroproxy.demo.upstream_site import UpstreamRoot, UpstreamSite, httpbin_resource, print_access

_INTERFACE: Final = "127.0.0.1"
_REACHED: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 26\r\nConnection: close\r\n\r\nthis must never be reached\n"


class UpstreamReactor(IReactorCore, IReactorFromThreads, IReactorSSL):
    """The interfaces of a reactor that the upstream uses."""


class Trap(Protocol):
    """A server that must receive nothing: it counts the bytes it is sent, and answers so that a fault shows."""

    factory: TrapFactory
    transport: ITransport

    def dataReceived(self, data: bytes) -> None:
        self.factory.received += len(data)
        self.transport.write(_REACHED)
        self.transport.loseConnection()


class TrapFactory(Factory[Trap]):
    """The listener of one bad certificate.

    :ivar received: the application bytes it has received, over all connections.
    """

    noisy = False

    def __init__(self) -> None:
        self.received = 0

    def buildProtocol(self, addr: IAddress | None) -> Trap:
        trap = Trap()
        trap.factory = self
        return trap


async def serve(reactor: UpstreamReactor, directory: Path, https_port: int) -> None:
    """Listen on everything, announce it in *directory*, and serve until the reactor stops.

    :param https_port: the TCP port of the good listener; 0 for any.
    :raises CannotListenError: the port is taken.
    :raises ImportError: httpbin is not installed.
    """
    authority = ThrowAwayAuthority()
    ca_file = directory / "ca.pem"
    ca_file.write_bytes(authority.pem)
    traps = {name: TrapFactory() for name in MAKE_BAD}
    root = UpstreamRoot(httpbin_resource(reactor), lambda: {name: trap.received for name, trap in traps.items()})
    ports = {"https": await _listen(reactor, https_port, authority.issue(), UpstreamSite(root, print_access))}
    for name, make in MAKE_BAD.items():
        ports[name] = await _listen(reactor, 0, make(authority), traps[name])
    announcement = directory / UPSTREAM_FILE
    reactor.addSystemEventTrigger("before", "shutdown", announcement.unlink, missing_ok=True)
    write_upstream_file(announcement, LocalUpstream(**ports, ca_file=str(ca_file), pid=os.getpid()))
    print(f"upstream: https://localhost:{ports['https']} (CA: {ca_file})", file=sys.stderr, flush=True)
    await Deferred[None]()


async def _listen(reactor: IReactorSSL, port: int, identity: ServerIdentity, factory: IProtocolFactory) -> int:
    pair = PrivateCertificate.loadPEM(identity.pem)
    options = CertificateOptions(
        privateKey=pair.privateKey.original,
        certificate=pair.original,
        raiseMinimumTo=TLSVersion.TLSv1_3,
        acceptableProtocols=[b"http/1.1"],
    )
    listening: IListeningPort = await SSL4ServerEndpoint(reactor, port, options, interface=_INTERFACE).listen(factory)
    address = listening.getHost()
    assert isinstance(address, IPv4Address)
    return address.port


def run(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM or SIGINT, then raise SystemExit with 0; with 1 after one line when it cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m nitroproxy.demo.upstream",
        description="httpbin behind TLS 1.3 on this machine, with listeners whose certificates must be refused.",
    )
    parser.add_argument("--directory", type=Path, required=True, help=f"where ca.pem and {UPSTREAM_FILE} go")
    parser.add_argument("--https-port", type=int, default=0, help="the good listener's TCP port (default: any)")
    options = parser.parse_args(arguments)

    async def main(reactor: UpstreamReactor) -> None:
        try:
            await serve(reactor, options.directory.resolve(), options.https_port)
        except ImportError as error:
            hint = "install the development dependencies: pip install 'nitroproxy[dev]'"
            raise SystemExit(_complain(f"{error}; {hint}")) from error
        except Exception as error:
            raise SystemExit(_complain(str(error))) from error

    task.react(main)


def _complain(message: str) -> int:
    print(f"upstream: {message}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    run(sys.argv[1:])
