"""`python -m benchmarks.handshaker KIND PORT CA SECONDS`: TLS handshakes with localhost:PORT, one after the other.

KIND is ``nitroproxy`` (`nitroproxy.tls.client`), ``stock`` (Twisted's optionsForClientTLS) or ``bare`` (pyOpenSSL on a
blocking socket: the chain verified, the name not, as s_time does; a session resumed if the server allows it). Each
connection requests one small page and is closed. Prints the number of handshakes and their CPU time in seconds.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import defer, task
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.python.failure import Failure

from nitroproxy.tls.client import TLSClient
from nitroproxy.tls.settings import TLSSettings

_REQUEST = b"GET /1k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_HOST = "localhost"


class _Ask(Protocol):
    """Requests the page and waits for the end of the connection."""

    transport: Any

    def __init__(self) -> None:
        self.done: defer.Deferred[None] = defer.Deferred()

    def connectionMade(self) -> None:
        self.transport.write(_REQUEST)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.done.callback(None)


def _endpoints(kind: str, reactor: Any, port: int, ca: Path) -> Callable[[], IStreamClientEndpoint]:
    def plain() -> TCP4ClientEndpoint:
        return TCP4ClientEndpoint(reactor, "127.0.0.1", port)

    if kind == "stock":
        trust = trustRootFromCertificates([Certificate.loadPEM(ca.read_bytes())])
        return lambda: wrapClientTLS(optionsForClientTLS(_HOST, trust), plain())
    client = TLSClient(TLSSettings(ca_file=str(ca)))
    return lambda: client.wrap(plain(), _HOST, port)


async def _run(reactor: Any, kind: str, port: str, ca: str, seconds: str) -> None:
    endpoint_of = _endpoints(kind, reactor, int(port), Path(ca))
    factory = Factory.forProtocol(_Ask)
    factory.noisy = False
    count = 0
    until = reactor.seconds() + float(seconds)
    before = time.process_time()
    while reactor.seconds() < until:
        protocol: Any = await endpoint_of().connect(factory)
        await protocol.done
        count += 1
    print(count, time.process_time() - before)


def _bare(port: str, ca: str, seconds: str) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.load_verify_locations(ca)
    context.set_verify(SSL.VERIFY_PEER)
    session: SSL.Session | None = None
    count = 0
    until = time.monotonic() + float(seconds)
    before = time.process_time()
    while time.monotonic() < until:
        with socket.create_connection(("127.0.0.1", int(port))) as wire:
            connection = SSL.Connection(context, wire)
            connection.set_tlsext_host_name(_HOST.encode("ascii"))
            connection.set_connect_state()
            if session is not None:
                connection.set_session(session)
            connection.do_handshake()
            connection.send(_REQUEST)
            with contextlib.suppress(SSL.ZeroReturnError):
                while True:
                    connection.recv(32768)
            session = connection.get_session()
            connection.shutdown()
        count += 1
    print(count, time.process_time() - before)


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        _bare(*sys.argv[2:])
    else:
        task.react(lambda reactor: defer.ensureDeferred(_run(reactor, *sys.argv[1:])))
