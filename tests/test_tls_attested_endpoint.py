"""Tests of `nitroproxy.tls.attested_endpoint`: which servers are accepted, and that nothing is sent to others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation import Entry, Policy, Refused, evidence
from nitroproxy.attestation.evidence import CHANNEL, IDENTITY, make_certificate
from nitroproxy.tls import attested_endpoint
from nitroproxy.tls.attested_endpoint import AttestedTLS, Verifier, identity_of
from nitroproxy.tls.settings import ClientCertificateFiles
from tests.attestation.pki import pki
from tests.attestation.tlspair import NOW, POLICY, Key, TLSPair
from tests.tlsmemory import Application, Authority, MemoryServer
from tests.tlsmemory import Identity as ServerIdentity
from tests.wire import Maker, WaitingEndpoint, Wire


class EndpointCase(SynchronousTestCase):
    """A client and an enclave's server."""

    def setUp(self) -> None:
        self.pair = TLSPair()
        self.tls = AttestedTLS(self.pair.verifier())

    def refused(self, tls: AttestedTLS | None = None) -> str:
        """Connect in vain, for the attestation's sake; the rule. Nothing has reached what is served."""
        self.pair.connect(tls or self.tls)
        outcome = self.pair.outcome
        self.assertIsInstance(outcome, Refused)
        self.assertEqual(self.pair.serving.received, b"")
        self.assertEqual(len(self.pair.serving.lost), 1)
        return str(outcome.rule)

    def serve(self, made: bytes) -> None:
        """Serve a certificate with the document *made*."""
        self.pair.server.use(self.pair.key.pkcs8, self.pair.key.certificate(made))


class HandshakeTests(EndpointCase):
    """Handshakes."""

    def test_accepted(self) -> None:
        """The right enclave: the application speaks, both ways, and knows whom it speaks with."""
        self.pair.connect(self.tls)
        speaking = self.pair.outcome
        self.assertEqual(self.pair.serving.received, b"secret")
        self.pair.near.protocol.write(b"answer")  # type: ignore[attr-defined]
        self.pair.carry()
        self.assertEqual(speaking.received, b"answer")
        identity = identity_of(speaking.transport)
        assert identity is not None
        self.assertEqual((identity.spki, identity.attestation.entry), (self.pair.key.spki, "test"))
        speaking.transport.loseConnection()
        self.pair.carry()
        self.assertEqual(len(speaking.lost), 1)
        self.assertEqual(self.pair.clock.getDelayedCalls(), [])

    def test_ciphertext(self) -> None:
        """What crosses the wire has nothing of what is said."""
        self.pair.connect(self.tls)
        self.assertNotIn(b"secret", self.pair.carried[0])
        self.assertGreater(len(self.pair.carried[0]), 200)

    def test_wrong_image(self) -> None:
        """An image that the policy does not accept."""
        other = Policy((Entry("other", {index: b"o" * 48 for index in range(5)}),))
        self.assertEqual(self.refused(AttestedTLS(self.pair.verifier(other))), "policy")

    def test_copied_document(self) -> None:
        """A host that serves a copied document with a key of its own."""
        thief = Key()
        self.pair.server.use(thief.pkcs8, thief.certificate(self.pair.key.document()))
        self.assertEqual(self.refused(), "binding")

    def test_copied_certificate(self) -> None:
        """A host that serves the copied certificate cannot complete the handshake: it has not the key."""
        copied = x509.load_der_x509_certificate(self.pair.key.certificate())
        thief = ServerIdentity(copied, ec.generate_private_key(ec.SECP256R1()))
        self.assertRaises(SSL.Error, MemoryServer, thief, lambda context: context.check_privatekey())

    def test_documents(self) -> None:
        """A debug image, a document with an unknown field, one that was not made for TLS, a stale one."""
        zeros = {index: bytes(48) if index < 3 else bytes([index + 1]) * 48 for index in range(16)}
        changes: tuple[tuple[dict[str, Any], str], ...] = (
            ({"pcrs": zeros}, "debug"),
            ({"unknown": 1}, "fields"),
            ({"user_data": b"an application's"}, "binding"),
            ({"user_data": CHANNEL + bytes(32)}, "binding"),
        )
        for change, rule in changes:
            self.serve(self.pair.key.document(**change))
            self.assertEqual(self.refused(), rule)
        self.serve(self.pair.key.document())
        self.pair.now = NOW + timedelta(hours=1)
        self.assertEqual(self.refused(), "age")

    def test_other_servers(self) -> None:
        """A server with a usual certificate, be it of whatever authority, is no enclave."""
        server = MemoryServer(Authority().issue("enclave.example"))
        inner = WaitingEndpoint()
        failures: list[Any] = []
        connecting = self.tls.wrap(inner, "enclave.example", self.pair.clock).connect(Maker(Application))
        connecting.addErrback(lambda failure: failures.append(failure.value))
        server.accept(inner.accept())
        self.assertEqual((failures[0].rule, server.received), ("extension", b""))

    def test_chain(self) -> None:
        """An enclave's certificate that is signed by another, which is sent along, is refused: there is nothing above
        it."""
        authority = Authority()
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "enclave")])
        made = x509.load_der_x509_certificate(self.pair.key.certificate())
        builder = x509.CertificateBuilder(authority.name, name, made.public_key(), 5)
        builder = builder.not_valid_before(made.not_valid_before_utc).not_valid_after(made.not_valid_after_utc)
        for extension in made.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        signed = builder.sign(authority.key, made.signature_hash_algorithm)  # type: ignore[arg-type]
        server = MemoryServer(ServerIdentity(signed, self.pair.key.private, (authority.certificate,)))
        inner = WaitingEndpoint()
        failures: list[Any] = []
        connecting = self.tls.wrap(inner, "enclave.example", self.pair.clock).connect(Maker(Application))
        connecting.addErrback(lambda failure: failures.append(failure.value))
        server.accept(inner.accept())
        self.assertEqual((failures[0].rule, server.received), ("binding", b""))

    def test_old_version(self) -> None:
        """A server that speaks TLS 1.2 only is not spoken with."""
        served = ServerIdentity(x509.load_der_x509_certificate(self.pair.key.certificate()), self.pair.key.private)
        server = MemoryServer(served, lambda context: context.set_max_proto_version(SSL.TLS1_2_VERSION))
        inner = WaitingEndpoint()
        failures: list[Any] = []
        connecting = self.tls.wrap(inner, "enclave.example", self.pair.clock).connect(Maker(Application))
        connecting.addErrback(lambda failure: failures.append(failure.value))
        server.accept(inner.accept())
        self.assertIsInstance(failures[0], SSL.Error)
        self.assertEqual(server.received, b"")

    def test_defects(self) -> None:
        """Any exception of ours refuses."""
        for target, name in ((attested_endpoint, "verify_certificate"), (crypto, "dump_publickey")):
            patch = self.patch(target, name, self.fail_with)
            self.pair.connect(AttestedTLS(self.pair.verifier()))
            self.assertIsInstance(self.pair.outcome, ZeroDivisionError)
            self.assertEqual(self.pair.serving.received, b"")
            patch.restore()

    @staticmethod
    def fail_with(*arguments: object, **named: object) -> None:
        """A defect."""
        raise ZeroDivisionError

    def test_callback(self) -> None:
        """OpenSSL's callback says no to whatever it cannot judge."""

        class Strange:
            def get_app_data(self) -> object:
                raise ZeroDivisionError

        verified: Callable[..., bool] = attested_endpoint._certificate_verified
        self.assertFalse(verified(Strange(), None, 0, 0, 1))
        self.assertFalse(verified(SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None), None, 0, 0, 1))

    def test_no_verdict(self) -> None:
        """A handshake that was completed without a certificate being accepted is refused all the same."""
        self.patch(attested_endpoint._Attesting, "judge", lambda self, certificate, depth: True)
        self.assertEqual(self.refused(AttestedTLS(self.pair.verifier())), "internal")

    def test_other_certificate(self) -> None:
        """The certificate that was accepted must be that of the connection."""
        other = Key().certificate()
        judge = attested_endpoint._Attesting.judge

        def judged(attesting: Any, certificate: crypto.X509, depth: int) -> bool:
            accepted = judge(attesting, certificate, depth)
            attesting._der = other
            return accepted

        self.patch(attested_endpoint._Attesting, "judge", judged)
        self.assertEqual(self.refused(AttestedTLS(self.pair.verifier())), "internal")


class ConnectionTests(EndpointCase):
    """Connections that do not come about."""

    def connecting(self) -> tuple[WaitingEndpoint, Any, list[Any]]:
        inner = WaitingEndpoint()
        failures: list[Any] = []
        connecting: Any = self.tls.wrap(inner, "enclave.example", self.pair.clock).connect(Maker(Application))
        connecting.addErrback(lambda failure: failures.append(failure.value))
        return inner, connecting, failures

    def test_cut(self) -> None:
        """A host that cuts the connection, before, in and at the end of the handshake."""
        for size in (0, 100, 2000):
            inner, _, failures = self.connecting()
            far, near = inner.accept(), self.pair.accept()
            near.receive(far.take())
            flight = near.take()[:size]
            if flight:
                far.receive(flight)
            far.end()
            self.assertIsInstance(failures[0], ConnectionLost)
            near.receive(far.take())
            self.assertEqual(self.pair.serving.received, b"")
        self.assertEqual(self.pair.clock.getDelayedCalls(), [])

    def test_flipped(self) -> None:
        """A host that changes one byte of the enclave's first flight: the handshake fails, nothing is sent."""
        for place in range(20, 6000, 397):
            inner, _, failures = self.connecting()
            far, near = inner.accept(), self.pair.accept()
            near.receive(far.take())
            flight = bytearray(near.take())
            flight[min(place, len(flight) - 1)] ^= 1
            far.receive(bytes(flight))
            far.end()
            near.receive(far.take())
            self.assertEqual(len(failures), 1)
            self.assertEqual(self.pair.serving.received, b"")

    def test_refused(self) -> None:
        """The connection's own failure is passed on."""
        inner, _, failures = self.connecting()
        inner.refuse(ConnectionRefusedError())
        self.assertIsInstance(failures[0], ConnectionRefusedError)
        self.assertEqual(self.pair.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """Cancelled, it ends before there is a connection and after."""
        inner, connecting, failures = self.connecting()
        connecting.cancel()
        self.assertEqual((inner.cancelled, type(failures[0])), (1, CancelledError))
        inner, connecting, failures = self.connecting()
        far = inner.accept()
        connecting.cancel()
        far.settle()
        self.assertTrue(far.closed)
        self.assertIsInstance(failures[0], CancelledError)
        self.assertEqual(self.pair.clock.getDelayedCalls(), [])

    def test_late(self) -> None:
        """An enclave that does not answer in time."""
        inner, _, failures = self.connecting()
        far = inner.accept()
        self.pair.clock.advance(20)
        self.assertIn("not verified within 20 seconds", str(failures[0]))
        self.assertTrue(far.aborted)

    def test_late_connection(self) -> None:
        """One that is still being made is given up; if it comes nevertheless, it ends at once."""
        inner, _, failures = self.connecting()
        self.pair.clock.advance(20)
        self.assertIn("not verified within 20 seconds", str(failures[0]))
        self.assertEqual((inner.cancelled, len(failures)), (1, 1))
        inner, _, failures = self.connecting()
        factory, _ = inner.waiting[0]
        self.pair.clock.advance(20)
        protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.2", 443))
        assert protocol is not None
        far = Wire(protocol)
        self.assertTrue(far.aborted)
        self.assertEqual(len(failures), 1)


class VerdictTests(EndpointCase):
    """What is remembered."""

    def test_remembered(self) -> None:
        """A certificate is verified once; its age is judged for each connection, and a refusal is not remembered."""
        verified: list[bytes] = []
        verify = evidence.verify_certificate

        def counted(der: bytes, *arguments: Any, **named: Any) -> Any:
            verified.append(der)
            return verify(der, *arguments, **named)

        self.patch(attested_endpoint, "verify_certificate", counted)
        for _ in range(3):
            self.pair.connect(self.tls)
            self.assertIsInstance(self.pair.outcome, Application)
        self.assertEqual(len(verified), 1)
        self.pair.now = NOW + timedelta(hours=2)
        self.assertEqual([self.refused(), self.refused()], ["age", "age"])
        self.assertEqual(len(verified), 1)
        self.pair.now = NOW - timedelta(hours=2)
        self.assertEqual(self.refused(), "age")
        self.pair.now = NOW
        self.pair.connect(self.tls)
        self.assertIsInstance(self.pair.outcome, Application)

    def test_chain_that_has_ended(self) -> None:
        """A remembered verdict ends with the chain of its document."""
        policy = Policy(POLICY.entries, max_age=timedelta(seconds=10800))
        self.pair.key.chain = pki(leaf={"days": (0, 0.1)})
        self.serve(self.pair.key.document())
        tls = AttestedTLS(self.pair.verifier(policy))
        self.pair.connect(tls)
        self.pair.now = NOW + timedelta(hours=2, minutes=30)
        self.assertEqual(self.refused(tls), "validity")

    def test_bounded(self) -> None:
        """So many certificates are remembered, the newest."""
        self.patch(attested_endpoint, "_VERDICTS", 3)
        verifier = self.pair.verifier()
        made = [self.pair.key.certificate() for _ in range(5)]
        for der in made:
            verifier.verify(der)
        self.assertEqual(len(verifier._verdicts), 3)
        verifier.verify(made[0])

    def test_any_age(self) -> None:
        """A policy for archived documents is none for connections."""
        self.assertRaises(ValueError, Verifier, Policy(POLICY.entries, max_age=None))


class ChallengeTests(EndpointCase):
    """Enclaves that are challenged."""

    def setUp(self) -> None:
        super().setUp()
        self.tls = AttestedTLS(self.pair.verifier(), challenge=True)

    def challenge(self) -> bytes:
        """Connect; the nonce of the challenge, the only thing that was sent."""
        self.pair.connect(self.tls)
        self.assertEqual(self.pair.outcomes, [])
        line, _, rest = self.pair.serving.received.partition(b" HTTP/1.1\r\n")
        self.assertEqual(rest, b"Host: enclave\r\n\r\n")
        self.assertTrue(line.startswith(b"GET /enclave/attestation?nonce="))
        self.pair.serving.received = b""
        return bytes.fromhex(line.partition(b"=")[2].decode())

    def answer(self, nonce: bytes, **changes: Any) -> bytes:
        """The right answer on this connection, or with something changed."""
        exported = self.pair.near.protocol.exported()  # type: ignore[attr-defined]
        own = {"nonce": nonce, "user_data": CHANNEL + exported} | changes
        return self.pair.key.document(**own)

    def send(self, body: bytes, head: bytes = b"HTTP/1.1 200 OK", tail: bytes = b"") -> None:
        message = head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body + tail
        self.pair.near.protocol.write(message)  # type: ignore[attr-defined]
        self.pair.carry()

    def test_answered(self) -> None:
        """After the right answer the connection is used; each connection has a nonce of its own."""
        nonces = set()
        for _ in range(2):
            nonce = self.challenge()
            self.send(self.answer(nonce))
            self.assertIsInstance(self.pair.outcome, Application)
            self.assertEqual(self.pair.serving.received, b"secret")
            nonces.add(nonce)
        self.assertEqual({len(nonce) for nonce in nonces} | {len(nonces)}, {32, 2})

    def test_in_pieces(self) -> None:
        """An answer that comes byte by byte."""
        body = self.answer(self.challenge())
        message = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for place in range(0, len(message), 64):
            self.assertEqual(self.pair.outcomes, [])
            self.pair.near.protocol.write(message[place : place + 64])  # type: ignore[attr-defined]
            self.pair.carry()
        self.assertIsInstance(self.pair.outcome, Application)

    def test_refusals(self) -> None:
        """The answer to another challenge, of another connection or key, an identity, and what is no answer."""
        thief = Key()
        cases: tuple[tuple[Callable[[bytes], Any], str], ...] = (
            (lambda nonce: self.send(self.answer(bytes(32))), "nonce"),
            (lambda nonce: self.send(self.answer(nonce, user_data=CHANNEL + bytes(32))), "binding"),
            (lambda nonce: self.send(self.answer(nonce, user_data=IDENTITY)), "binding"),
            (lambda nonce: self.send(self.answer(nonce, public_key=thief.spki)), "binding"),
            (lambda nonce: self.send(self.answer(nonce), tail=b"more"), "nonce"),
            (lambda nonce: self.send(self.answer(nonce), b"HTTP/1.1 503 Busy"), "nonce"),
            (lambda nonce: self.send(self.answer(nonce), b"HTTP/1.1 200 OK\r\nConnection: close"), "nonce"),
            (lambda nonce: self.send(b"", b"HTTP/1.1 404 None"), "nonce"),
            (lambda nonce: self.send(bytes(20000)), "size"),
            (lambda nonce: self.send(b"nonsense"), "cbor"),
            (lambda nonce: self.send(b"", b"rubbish"), "nonce"),
        )
        for act, rule in cases:
            act(self.challenge())
            outcome = self.pair.outcome
            self.assertIsInstance(outcome, Refused)
            self.assertEqual(outcome.rule, rule, outcome)
            self.assertEqual(self.pair.serving.received, b"")

    def test_relayed(self) -> None:
        """Who has stolen the key of an enclave and relays the challenge to it gets an answer for another connection."""
        nonce = self.challenge()
        theirs = b"x" * 32
        self.send(self.answer(nonce, user_data=CHANNEL + theirs))
        self.assertEqual(self.pair.outcome.rule, "binding")

    def test_cut(self) -> None:
        """A connection that is cut while the answer is awaited."""
        self.challenge()
        self.pair.far.end()
        self.assertIsInstance(self.pair.outcome, ConnectionLost)
        self.assertEqual(self.pair.clock.getDelayedCalls(), [])

    def test_late(self) -> None:
        """An answer that does not come in time."""
        self.challenge()
        self.pair.clock.advance(20)
        self.assertIsInstance(self.pair.outcome, ConnectionLost)


class ClientCertificateTests(EndpointCase):
    """Clients that have a certificate."""

    def setUp(self) -> None:
        self.authority = Authority("clients")
        path = Path(self.mktemp())
        path.write_bytes(self.authority.pem)
        self.pair = TLSPair(str(path))
        identity = self.authority.issue("client.example", without=[x509.ExtendedKeyUsage])
        self.files = ClientCertificateFiles(self.mktemp(), self.mktemp())
        Path(self.files.certificate_file).write_bytes(identity.pem)
        Path(self.files.key_file).write_bytes(identity.key_pem)
        Path(self.files.key_file).chmod(0o600)
        self.der = identity.certificate.public_bytes(Encoding.DER)

    def test_sent(self) -> None:
        """An accepted enclave gets it."""
        self.pair.connect(AttestedTLS(self.pair.verifier(), client_certificate=self.files))
        self.assertTrue(self.pair.near.protocol.certified)  # type: ignore[attr-defined]

    def test_not_sent(self) -> None:
        """One that is refused does not: its handshake ends before."""
        self.serve(self.pair.key.document(user_data=None))
        self.assertEqual(self.refused(AttestedTLS(self.pair.verifier(), client_certificate=self.files)), "binding")
        self.assertEqual(self.pair.shaken, [False])

    def test_files(self) -> None:
        """Files that cannot be used are an error at once."""
        bad = ClientCertificateFiles("/no/such/file", self.files.key_file)
        self.assertRaises(ValueError, AttestedTLS, self.pair.verifier(), client_certificate=bad)


class OtherTests(SynchronousTestCase):
    """The rest."""

    def test_identity_of_others(self) -> None:
        """Other connections have proven nothing."""
        self.assertIsNone(identity_of(object()))

    def test_made(self) -> None:
        """The test's own certificates are made as the enclave makes them."""
        key = Key()
        made = make_certificate(key.private, key.document(), NOW, NOW + timedelta(hours=3))
        self.assertLess(abs(len(made) - len(key.certificate())), 8)
