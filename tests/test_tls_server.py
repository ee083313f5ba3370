"""Tests of `nitroproxy.tls.server`: TLS for clients from outside, in memory."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation.evidence import EXPORTER_BYTES, EXPORTER_LABEL
from nitroproxy.tls.server import ServerTransport, TLSServer, exported_of
from tests.attestation.tlspair import Key, TLSPair
from tests.tlsmemory import Authority, Identity
from tests.wire import Wire


class Client:
    """A client that knows nothing of attestation."""

    def __init__(self, wire: Wire, identity: Identity | None = None, configure: Any = lambda context: None) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if identity is not None:
            context.use_certificate(identity.certificate)
            context.use_privatekey(identity.key)
        configure(context)
        self.wire = wire
        self.tls = SSL.Connection(context, None)
        self.tls.set_connect_state()
        self.received = b""
        self.error: SSL.Error | None = None

    def carry(self) -> None:
        """Shake hands, and read."""
        for _ in range(10):
            try:
                self.tls.do_handshake()
                while True:
                    self.received += self.tls.recv(65536)
            except (SSL.WantReadError, SSL.ZeroReturnError):
                pass
            except SSL.Error as error:
                self.error = error
            with contextlib.suppress(SSL.WantReadError):
                self.wire.receive(self.tls.bio_read(65536))
            sent = self.wire.take()
            if not sent:
                return
            self.tls.bio_write(sent)

    def send(self, data: bytes) -> None:
        """Send *data*."""
        self.tls.send(data)
        self.carry()


class ServerTests(SynchronousTestCase):
    """The server, and clients that know nothing of it."""

    def setUp(self) -> None:
        self.pair = TLSPair()

    def client(self, identity: Identity | None = None, configure: Any = lambda context: None) -> Client:
        client = Client(self.pair.accept(), identity, configure)
        client.carry()
        return client

    @property
    def transport(self) -> ServerTransport:
        """The server's end of the last connection."""
        protocol = self.pair.near.protocol
        assert isinstance(protocol, ServerTransport)
        return protocol

    def test_strangers(self) -> None:
        """A client that does not verify connects as usual: TLS 1.3, with the hybrid key exchange, HTTP/1.1."""
        client = self.client(configure=lambda context: context.set_alpn_protos([b"h2", b"http/1.1"]))
        client.send(b"hello")
        self.assertEqual(self.pair.serving.received, b"hello")
        self.assertEqual(client.tls.get_protocol_version_name(), "TLSv1.3")
        self.assertEqual(client.tls.get_group_name(), "X25519MLKEM768")
        self.assertEqual(client.tls.get_alpn_proto_negotiated(), b"http/1.1")
        self.assertEqual(self.pair.shaken, [True])
        self.assertIsNone(exported_of(self.pair.near))

    def test_exported(self) -> None:
        """Both ends of a connection have the same keying material, and those of another connection another."""
        client = self.client()
        first = self.transport.exported()
        self.assertEqual(exported_of(self.transport), first)
        self.assertEqual(client.tls.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES, b""), first)
        other = self.client()
        self.assertNotEqual(other.tls.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES, b""), first)
        self.assertEqual(len(first), 32)

    def test_old_versions(self) -> None:
        """TLS 1.2 is not spoken."""
        client = self.client(configure=lambda context: context.set_max_proto_version(SSL.TLS1_2_VERSION))
        self.assertIn("alert protocol version", str(client.error))
        self.assertEqual(self.pair.shaken, [False])
        self.assertEqual(len(self.pair.serving.lost), 1)

    def test_other_protocol(self) -> None:
        """A client that offers HTTP/2 alone is told of no protocol; none is chosen that is not spoken."""
        client = self.client(configure=lambda context: context.set_alpn_protos([b"h2"]))
        self.assertEqual((client.error, client.tls.get_alpn_proto_negotiated()), (None, b""))

    def test_no_resumption(self) -> None:
        """No session is resumed."""
        client = self.client()
        client.send(b"x")
        session = client.tls.get_session()
        assert session is not None
        again = Client(self.pair.accept())
        again.tls = SSL.Connection(client.tls.get_context(), None)
        again.tls.set_connect_state()
        again.tls.set_session(session)
        again.wire.receive(self.hello(again))
        sent = again.wire.take()
        again.tls.bio_write(sent)
        again.carry()
        again.send(b"y")
        self.assertEqual(self.pair.serving.received, b"y")
        self.assertGreater(len(sent), 3000, "the certificate was sent again")

    @staticmethod
    def hello(client: Client) -> bytes:
        """The client's first message."""
        with contextlib.suppress(SSL.WantReadError):
            client.tls.do_handshake()
        return client.tls.bio_read(65536)

    def test_renewed(self) -> None:
        """New connections get a renewed certificate; one that is open lives on."""
        old = self.client()
        key = Key()
        self.pair.server.use(key.pkcs8, key.certificate())
        new = self.client()
        served = [client.tls.get_peer_certificate(as_cryptography=True) for client in (old, new)]
        assert served[0] is not None and served[1] is not None
        self.assertNotEqual(served[0].public_key(), served[1].public_key())
        self.assertEqual(served[1].public_key(), key.private.public_key())
        old.send(b"still here")
        self.assertIsNone(old.error)

    def test_wrong_key(self) -> None:
        """A certificate is not served with another's key."""
        self.assertRaises(SSL.Error, self.pair.server.use, Key().pkcs8, self.pair.key.certificate())

    def test_not_ready(self) -> None:
        """Without a certificate nothing is served."""
        self.pair.server = TLSServer()
        self.assertRaises(RuntimeError, self.pair.server.serverConnectionForTLS, None)

    def test_refused_peer(self) -> None:
        """A peer that the listener refuses gets no connection."""

        class Refusing:
            def buildProtocol(self, address: object) -> None:
                return None

        refusing: Any = Refusing()
        wrapped: Any = self.pair.server.around(refusing, self.pair.deadlines.after, lambda: 10.0)
        self.assertIsNone(wrapped.buildProtocol(None))

    def test_half_close(self) -> None:
        """The server can end its direction and read on: the client sees a close_notify, not a cut connection."""
        client = self.client()
        self.transport.write(b"answer")
        self.transport.loseWriteConnection()
        client.carry()
        self.assertEqual(client.received, b"answer")
        self.assertTrue(client.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN)
        self.assertTrue(self.pair.near.half_closed)
        self.pair.near.settle()
        self.assertEqual(self.pair.serving.events, ["write ended"])
        client.send(b"more")
        self.assertEqual(self.pair.serving.received, b"more")
        self.assertEqual(self.pair.serving.lost, [])
        client.tls.shutdown()
        client.carry()
        self.assertIsInstance(self.pair.serving.lost[0], ConnectionDone)

    def test_half_close_before_the_handshake(self) -> None:
        """What is written before the handshake, and a half-close, take effect after it."""
        wire = self.pair.accept()
        self.transport.write(b"busy")
        self.transport.loseWriteConnection()
        self.assertFalse(wire.half_closed)
        client = Client(wire)
        client.carry()
        self.assertEqual((client.received, wire.half_closed), (b"busy", True))
        self.assertTrue(client.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN)

    def test_cut(self) -> None:
        """A connection that ends without a close_notify is a lost one, in the handshake and after it."""
        self.client()
        self.pair.near.end()
        self.assertIsInstance(self.pair.serving.lost[0], (ConnectionAborted, ConnectionLost))
        wire = self.pair.accept()
        wire.end()
        self.assertEqual(len(self.pair.serving.lost), 1)
        self.assertEqual(self.pair.shaken, [True, False])

    def test_late(self) -> None:
        """A handshake that is not over in time is ended, however little by little it comes; one that is over is not."""
        served = self.client()
        wire = self.pair.accept()
        slow = Client(wire)
        with contextlib.suppress(SSL.WantReadError):
            slow.tls.do_handshake()
        hello = slow.tls.bio_read(65536)
        for place in range(9):
            wire.receive(hello[place : place + 1])
            self.pair.server_clock.advance(1)
        self.assertFalse(wire.closed)
        self.pair.server_clock.advance(1.1)
        wire.settle()
        self.assertTrue(wire.closed)
        self.assertEqual(self.pair.shaken, [True, False])
        served.send(b"still here")
        self.assertIsNone(served.error)

    def test_rubbish(self) -> None:
        """What is no TLS ends the connection, and nothing of it reaches what is served."""
        self.pair.accept().receive(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual((self.pair.serving.received, len(self.pair.serving.lost)), (b"", 1))
        self.assertEqual(self.pair.shaken, [False])


class ClientCertificateTests(SynchronousTestCase):
    """A server that asks for clients' certificates."""

    def setUp(self) -> None:
        self.authority = Authority("clients")
        path = Path(self.mktemp())
        path.write_bytes(self.authority.pem)
        self.pair = TLSPair(str(path))

    def connect(self, identity: Identity | None) -> tuple[Client, bool]:
        client = Client(self.pair.accept(), identity)
        client.carry()
        if client.error is None:
            client.send(b"hello")
        protocol = self.pair.near.protocol
        assert isinstance(protocol, ServerTransport)
        return client, protocol.certified

    @staticmethod
    def usage(purpose: x509.ObjectIdentifier) -> tuple[x509.ExtensionType, bool]:
        return x509.ExtendedKeyUsage([purpose]), False

    def test_certified(self) -> None:
        """A client with a certificate of the authority is certified, one without is not, and is served too."""
        good = self.authority.issue(extra=[self.usage(ExtendedKeyUsageOID.CLIENT_AUTH)])
        client, certified = self.connect(good)
        self.assertEqual((client.error, certified, self.pair.serving.received), (None, True, b"hello"))
        client, certified = self.connect(None)
        self.assertEqual((client.error, certified, self.pair.serving.received), (None, False, b"hello"))

    def test_others(self) -> None:
        """One with another authority's certificate, one for servers alone, or one that has expired, is refused in the
        handshake: it is not served as if it had none."""
        client_auth = self.usage(ExtendedKeyUsageOID.CLIENT_AUTH)
        ended = x509.load_pem_x509_certificate(self.authority.pem).not_valid_before_utc
        for identity in (
            Authority("clients").issue(extra=[client_auth]),
            self.authority.issue(extra=[self.usage(ExtendedKeyUsageOID.SERVER_AUTH)]),
            self.authority.issue(extra=[client_auth], not_before=ended, not_after=ended),
        ):
            client, certified = self.connect(identity)
            self.assertFalse(certified)
            self.assertEqual(self.pair.serving.received, b"")
            self.assertIn("alert", str(client.error))

    def test_not_asked(self) -> None:
        """Without authorities nobody is asked, and nobody certified."""
        self.pair = TLSPair()
        client, certified = self.connect(self.authority.issue())
        self.assertEqual((client.error, certified), (None, False))

    def test_before_the_handshake(self) -> None:
        """Nobody is certified before the handshake is over, nor after the connection has ended."""
        wire = self.pair.accept()
        protocol = wire.protocol
        assert isinstance(protocol, ServerTransport)
        self.assertFalse(protocol.certified)
        wire.lose()
        self.assertFalse(protocol.certified)

    def test_files(self) -> None:
        """A file of authorities that cannot be used is an error that names it."""
        for content, why in ((None, "No such file"), (b"", "holds no certificate in PEM")):
            path = Path(self.mktemp())
            if content is not None:
                path.write_bytes(content)
            error = self.assertRaises(ValueError, TLSServer, str(path))
            self.assertIn(f"{path}: {why}", str(error))
