"""An enclave's TLS and a client's, joined in memory: for the tests of both, without sockets or an enclave."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from nitroproxy.attestation import Entry, Policy
from nitroproxy.attestation.evidence import IDENTITY, make_certificate, spki_of
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.tls.attested_endpoint import AttestedTLS, Verifier
from nitroproxy.tls.server import ServerTransport, TLSServer
from tests.attestation.pki import T0, document, fields, pki
from tests.tlsmemory import Application
from tests.wire import Maker, WaitingEndpoint, Wire

#: When everything happens.
NOW = T0 + timedelta(minutes=2)
POLICY = Policy((Entry("test", {index: bytes([index + 1]) * 48 for index in range(5)}),))


class Key:
    """An enclave's key and what it makes of it."""

    def __init__(self) -> None:
        self.chain = pki()
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.spki = spki_of(self.private.public_key())

    @property
    def pkcs8(self) -> bytes:
        """The private key."""
        return self.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def document(self, **changes: Any) -> bytes:
        """A document for this key, or with other fields."""
        own = {"public_key": self.spki, "user_data": IDENTITY, "nonce": None}
        return document(self.chain, {**fields(self.chain), **own, **changes})

    def certificate(self, made: bytes | None = None) -> bytes:
        """A certificate with a document."""
        return make_certificate(self.private, made or self.document(), NOW, NOW + timedelta(hours=3))


@implementer(IHalfCloseableProtocol)
class Serving(Protocol):
    """What is served: it records what it hears.

    :ivar events: ``write ended`` when a half-close has been carried out.
    """

    def __init__(self) -> None:
        self.received = b""
        self.lost: list[object] = []
        self.events: list[str] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def readConnectionLost(self) -> None:
        self.events.append("read ended")

    def writeConnectionLost(self) -> None:
        self.events.append("write ended")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason.value)


class TLSPair:
    """A server, and clients that connect to it one after the other.

    :ivar serving: what the last connection was served by.
    :ivar outcome: of the last connection: the application's protocol or the exception.
    :ivar shaken: the outcomes of handshakes, as the server counts them.
    """

    def __init__(self, client_ca_file: str | None = None) -> None:
        self.key = Key()
        self.clock = Clock()
        self.shaken: list[bool] = []
        self.now = NOW
        self.server = TLSServer(client_ca_file, self.shaken.append)
        self.server.use(self.key.pkcs8, self.key.certificate())
        self.server_clock = Clock()
        self.deadlines = Deadlines(self.server_clock)
        self.wrapped = self.server.around(Factory.forProtocol(self._make), self.deadlines.after, lambda: 10.0)
        self.carried = [b"", b""]

    def _make(self) -> Serving:
        self.serving = Serving()
        return self.serving

    def verifier(self, policy: Policy = POLICY) -> Verifier:
        """A verifier that trusts the test's root, at the test's time."""
        return Verifier(policy, roots=self.key.chain.roots, now=lambda: self.now.astimezone(UTC))

    def accept(self) -> Wire:
        """The server's end of a new connection."""
        wrapped: Any = self.wrapped
        protocol = wrapped.buildProtocol(None)
        assert isinstance(protocol, ServerTransport)
        self.near = Wire(protocol)
        return self.near

    def connect(self, tls: AttestedTLS, host: str = "enclave.example") -> Wire:
        """Connect as far as it goes; the client's end."""
        inner = WaitingEndpoint()
        outcomes: list[Any] = []
        connecting = tls.wrap(inner, host, self.clock).connect(Maker(Application))
        connecting.addCallbacks(outcomes.append, lambda failure: outcomes.append(failure.value))
        self.outcomes = outcomes
        far = self.far = inner.accept()
        self.accept()
        self.carry()
        return far

    @property
    def outcome(self) -> Any:
        """What has become of the last connection."""
        [outcome] = self.outcomes
        return outcome

    def carry(self) -> None:
        """Carry bytes both ways until there are none."""
        for _ in range(20):
            for source, sink, index in ((self.far, self.near, 0), (self.near, self.far, 1)):
                data = source.take()
                self.carried[index] += data
                if data and not sink.closed:
                    sink.receive(data)
                source.settle()
