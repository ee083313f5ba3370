"""What attestation costs in CPU time: a verification, and an attested handshake beside a usual one, in pairs.

usage: python -m tests.attestation.costs [ROUNDS]

Both ends of a handshake are in this process, in memory, over Twisted's TLS; the kinds alternate, so that all see the
same machine. The usual one verifies a certificate of an authority and its name.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate as TwistedCertificate
from twisted.internet.ssl import optionsForClientTLS, trustRootFromCertificates
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from nitroproxy.attestation import verify
from nitroproxy.attestation.evidence import verify_certificate
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.tls.attested_endpoint import AttestedTLS, Verifier
from nitroproxy.tls.server import TLSServer
from tests.attestation.real import load
from tests.attestation.tlspair import NOW, POLICY, Serving, TLSPair
from tests.tlsmemory import Application, Authority
from tests.wire import Maker, WaitingEndpoint, Wire


def _cost(act: Callable[[], object]) -> float:
    """Milliseconds of CPU time."""
    started = time.process_time()
    act()
    return 1e3 * (time.process_time() - started)


class Usual:
    """A server with a certificate of an authority, and clients that verify it."""

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        authority = Authority()
        identity = authority.issue("enclave.example")
        server = TLSServer()
        key = identity.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        server.use(key, identity.certificate.public_bytes(Encoding.DER))
        trusted = trustRootFromCertificates([TwistedCertificate.loadPEM(authority.pem)])
        options: Any = optionsForClientTLS("enclave.example", trusted)
        self._server: Any = server.around(Factory.forProtocol(Serving), Deadlines(Clock()).after, lambda: 10.0)
        self._client = TLSMemoryBIOFactory(options, True, Factory.forProtocol(Application))
        self._client.protocol = TLSMemoryBIOProtocol

    def connect(self) -> None:
        """One connection, until what the client says has arrived."""
        far = Wire(self._client.buildProtocol(None))
        _carry(far, Wire(self._server.buildProtocol(None)))


def _carry(far: Wire, near: Wire) -> None:
    """Until what the client says has arrived."""
    for _ in range(4):
        for source, sink in ((far, near), (near, far)):
            if data := source.take():
                sink.receive(data)
    serving: Any = near.protocol
    assert serving.wrappedProtocol.received == b"secret"


def _connect_attested(pair: TLSPair, tls: AttestedTLS) -> None:
    """One connection to the pair's enclave."""
    inner = WaitingEndpoint()
    tls.wrap(inner, "enclave.example", pair.clock).connect(Maker(Application))
    _carry(inner.accept(), pair.accept())


def main(arguments: list[str]) -> None:
    """Measure, and print."""
    rounds = int(arguments[0]) if arguments else 200
    genuine = [each for each in load() if each.genuine]
    costs = [
        _cost(lambda each=each: verify(each.data, each.policy(), now=datetime.now(UTC)))  # type: ignore[misc]
        for _ in range(max(rounds // len(genuine), 1))
        for each in genuine
    ]
    print(f"verifying one of {len(genuine)} real documents: median {statistics.median(costs):.2f} ms")
    pair, usual = TLSPair(), Usual()
    der, roots = pair.key.certificate(), pair.key.chain.roots
    costs = [_cost(lambda: verify_certificate(der, POLICY, now=NOW, roots=roots)) for _ in range(rounds)]
    print(f"verifying a certificate that carries one: median {statistics.median(costs):.2f} ms, {len(der)} bytes")
    known = AttestedTLS(pair.verifier())
    _connect_attested(pair, known)
    usual.connect()
    found: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        unknown = AttestedTLS(Verifier(POLICY, roots=roots, now=lambda: NOW + timedelta()))
        found.append(
            (
                _cost(usual.connect),
                _cost(lambda: _connect_attested(pair, known)),
                _cost(lambda unknown=unknown: _connect_attested(pair, unknown)),  # type: ignore[misc]
            )
        )
    usually, after, first = (statistics.median(column) for column in zip(*found, strict=True))
    print(f"a handshake, both ends: usual {usually:.2f} ms; attested {after:.2f} ms, the first time {first:.2f} ms")
    for name, column in (("after the first", 1), ("the first time", 2)):
        ratio = statistics.median(one[column] / one[0] for one in found)
        print(f"attested {name} / usual: median of {rounds} pairs {ratio:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
