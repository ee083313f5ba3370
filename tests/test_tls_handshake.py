"""`nitroproxy.tls.handshake` against servers in memory: alerts explained, client certificates, exceptions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL, crypto
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.tls.client import TLSClient
from nitroproxy.tls.settings import ClientCertificateFiles, TLSSettings
from nitroproxy.tls.verification import Verifier
from tests.tlsmemory import Authority, MemoryServer
from tests.wire import WaitingEndpoint


class HandshakeCase(SynchronousTestCase):
    """A client that trusts one authority."""

    def setUp(self) -> None:
        self.root = Authority()
        self.results: list[tuple[Kind | None, bool]] = []

    def file(self, content: bytes) -> str:
        path = Path(self.mktemp()).absolute()
        path.write_bytes(content)
        path.chmod(0o600)
        return str(path)

    def client(self, **settings: Any) -> TLSClient:
        chosen = TLSSettings(ca_file=self.file(self.root.pem), **settings)
        return TLSClient(chosen, shook_hands=lambda kind, resumed: self.results.append((kind, resumed)))

    def server(self, configure: Callable[[SSL.Context], object] = lambda context: None, *names: str) -> MemoryServer:
        return MemoryServer(self.root.issue(*names), configure)


class OutcomeTests(HandshakeCase):
    """How a handshake ends."""

    def test_accepted(self) -> None:
        """The application speaks once the certificate is accepted; the next connection resumes the session."""
        client, server = self.client(), self.server()
        server.accepted(client)
        server.accepted(client)
        self.assertEqual(self.results, [(None, False), (None, True)])

    def test_tls_1_2_only(self) -> None:
        """A destination with TLS 1.2 only: the detail names the setting and its other value."""

        def old(context: SSL.Context) -> None:
            context.set_max_proto_version(SSL.TLS1_2_VERSION)

        error = self.server(old).failed(self.client())
        self.assertIs(error.kind, Kind.TLS_ALERT_RECEIVED)
        self.assertIn('set tls.min_version to "TLSv1.2"', error.detail)
        self.server(old).accepted(self.client(min_version="TLSv1.2"))

    def test_http_2_only(self) -> None:
        """A destination that refuses http/1.1 in ALPN: the detail says so, and how it can be reached."""

        def refuse(connection: object, offered: list[bytes]) -> bytes:
            raise SSL.Error("only h2")

        error = self.server(lambda context: context.set_alpn_select_callback(refuse)).failed(self.client())
        self.assertIs(error.kind, Kind.TLS_ALERT_RECEIVED)
        self.assertIn("HTTP/2 only", error.detail)

    def test_no_certificate_and_no_session(self) -> None:
        """A handshake that showed neither a certificate nor a session of ours is refused."""
        original = TLSClient.clientConnectionForTLS

        def without_callback(client: TLSClient, protocol: Any) -> SSL.Connection:
            connection = original(client, protocol)
            connection.set_verify(SSL.VERIFY_PEER, lambda *arguments: True)
            return connection

        self.patch(TLSClient, "clientConnectionForTLS", without_callback)
        self.assertIn("the destination sent none", self.server().refused(self.client()))

    def test_exception_of_the_application(self) -> None:
        """An exception while the application's protocol is made fails the connection, as does having none made."""

        class Broken(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> Any:
                raise TypeError("a bug")

        for factory, expected in ((Broken(), TypeError), (Nothing(), ProxyError)):
            inner = WaitingEndpoint()
            server = self.server()
            connecting = self.client().wrap(inner, "a.example", 443).connect(factory)
            wire = inner.accept()
            server.accept(wire)
            self.failureResultOf(connecting, expected)
            self.assertTrue(wire.aborted)
        self.assertEqual(self.results, [(Kind.INTERNAL_ERROR, False)] * 2)


class Nothing(Factory):
    """Makes no protocol."""

    noisy = False

    def buildProtocol(self, addr: object) -> None:
        return None


class ClientCertificateTests(HandshakeCase):
    """tls.client_certificates."""

    def setUp(self) -> None:
        super().setUp()
        self.clients = Authority("clients")
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        self.identity = Authority("middle", self.clients).issue("client.example", extra=[(usage, False)])
        files = ClientCertificateFiles(self.file(self.identity.pem), self.file(self.identity.key_pem))
        self.certificates = {"a.example:443": files}

    def asking(self, context: SSL.Context) -> None:
        """Ask for a client certificate, and insist."""
        store = context.get_cert_store()
        assert store is not None
        store.add_cert(crypto.X509.from_cryptography(self.clients.certificate))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *arguments: bool(arguments[4]))

    def test_sent(self) -> None:
        """A destination of the pattern gets the certificate and its intermediates, and takes it."""
        server = self.server(self.asking)
        server.accepted(self.client(client_certificates=self.certificates))
        certificate = server.tls.get_peer_certificate(as_cryptography=True)
        self.assertEqual(certificate, self.identity.certificate)

    def test_other_port(self) -> None:
        """Another port of the same host is not of the pattern: it gets none, and no session with it either."""
        client, server = self.client(client_certificates=self.certificates), self.server(self.asking)
        server.accepted(client)
        wire, [application] = server.connect(client, "a.example", 8443)
        wire.settle()
        self.assertIsNone(server.tls.get_peer_certificate())
        self.assertNotEqual(application.lost, [])

    def test_missing(self) -> None:
        """TLS 1.3 reports a missing client certificate after the handshake: the application is given the reason."""
        wire, [application] = self.server(self.asking).connect(self.client())
        wire.settle()
        [error] = application.lost
        self.assertIs(error.kind, Kind.TLS_ALERT_RECEIVED)
        self.assertIn("requires a client certificate: tls.client_certificates", error.detail)

    def test_not_taken(self) -> None:
        """A client certificate that the destination does not trust is named by its pattern."""
        self.clients = Authority("others")
        client = self.client(client_certificates=self.certificates)
        wire, [application] = self.server(self.asking).connect(client)
        wire.settle()
        [error] = application.lost
        self.assertIs(error.kind, Kind.TLS_ALERT_RECEIVED)
        self.assertIn("does not take the client certificate", error.detail)
        self.assertIn("a.example:443", error.detail)

    def test_not_sent_to_another_name(self) -> None:
        """A destination whose certificate is for another name is refused before it has seen the client certificate."""
        server = self.server(self.asking, "b.example")
        detail = server.refused(self.client(client_certificates=self.certificates))
        self.assertIn("it is not for a.example, but for b.example", detail)
        self.assertIsNone(server.tls.get_peer_certificate())

    def test_early_check_fails_closed(self) -> None:
        """An exception in that early check refuses, too."""

        def broken(*arguments: object) -> None:
            raise TypeError("a bug")

        self.patch(Verifier, "check_name", broken)
        server = self.server(self.asking)
        self.assertIn("refused", server.refused(self.client(client_certificates=self.certificates)))
        self.assertIsNone(server.tls.get_peer_certificate())
