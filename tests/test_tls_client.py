"""TLS towards destinations on real connections: what is verified, and that nothing leaves before (S14-S16)."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.ssl import TLSVersion
from twisted.trial.unittest import SynchronousTestCase

import nitroproxy.tls.client
import nitroproxy.tls.names
from nitroproxy.demo.certificates import MAKE_BAD, ThrowAwayAuthority
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.tls.client import TLSClient
from nitroproxy.tls.settings import ClientCertificateFiles, TLSFileError, TLSSettings
from tests.tlsserver import ClientSide, ServerSide, TLSCase
from tests.wire import Maker, WaitingEndpoint

reactor: Any = global_reactor


class TLSTests(TLSCase):
    """A client and a server."""

    async def test_verified(self) -> None:
        """A good certificate for the name: TLS 1.3, the name sent as SNI, http/1.1 agreed on, data both ways."""
        protocol = await self.connect(self.client(), self.serve(self.authority.issue()))
        self.assertEqual(await protocol.answered, b"answer to secret")
        handle = protocol.transport.getHandle()
        self.assertEqual(
            (handle.get_protocol_version_name(), handle.get_alpn_proto_negotiated()), ("TLSv1.3", b"http/1.1")
        )
        self.assertEqual(self.server.names, [b"localhost"])
        await self.close(protocol)

    async def test_address(self) -> None:
        """A certificate for an IP address verifies it, and no SNI is sent (RFC 6066 section 3)."""
        protocol = await self.connect(self.client(), self.serve(self.authority.issue()), "127.0.0.1")
        await protocol.answered
        self.assertEqual(self.server.names, [None])
        await self.close(protocol)
        self.server.connections.clear()
        await self.refused(Kind.TLS_CERTIFICATE_ERROR, self.serve(self.authority.issue([])), "127.0.0.1")

    async def test_bad_certificates(self) -> None:
        """Each wrong certificate is refused before a byte of the application has left (S15)."""
        for name, make in MAKE_BAD.items():
            self.server.connections.clear()
            detail = await self.refused(Kind.TLS_CERTIFICATE_ERROR, self.serve(make(self.authority)))
            self.assertIn("localhost", detail, name)

    async def test_reasons(self) -> None:
        """The detail says what is wrong."""
        for name, words in (
            ("expired", "expired"),
            ("self_signed", "self-signed"),
            ("wrong_name", "not for localhost"),
        ):
            detail = await self.refused(Kind.TLS_CERTIFICATE_ERROR, self.serve(MAKE_BAD[name](self.authority)))
            self.assertIn(words, detail)

    async def test_untrusted(self) -> None:
        """A certificate of an authority that is not trusted is refused."""
        await self.refused(Kind.TLS_CERTIFICATE_ERROR, self.serve(ThrowAwayAuthority().issue()))

    async def test_certifi(self) -> None:
        """Without a CA file the roots are certifi's: a private authority is refused."""
        await self.refused(Kind.TLS_CERTIFICATE_ERROR, self.serve(self.authority.issue()), ca_file=None)

    async def test_unverified(self) -> None:
        """With verification off anything goes."""
        protocol = await self.connect(self.client(verify=False), self.serve(self.authority.expired()), "any.example")
        await protocol.answered
        await self.close(protocol)

    async def test_fails_closed(self) -> None:
        """An exception of any kind inside verification refuses (S14)."""
        port = self.serve(self.authority.issue())

        def broken(*arguments: object) -> None:
            raise TypeError("a bug")

        self.patch(nitroproxy.tls.names, "verify_service_identity", broken)
        self.assertIn("TypeError", await self.refused(Kind.TLS_CERTIFICATE_ERROR, port))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    async def test_callback_fails_closed(self) -> None:
        """OpenSSL's callback accepts only what OpenSSL and the handshake accept; an exception in it refuses, too."""

        class Handshake:
            """Forgives everything."""

            def certificate_verified(self, *arguments: object) -> object:
                return self.answer

            answer: object = True

        class Connection:
            """Has the handshake where the callback looks for it."""

            wrappedProtocol = handshake = Handshake()

            def get_app_data(self) -> object:
                return self

        verified: Any = nitroproxy.tls.client._certificate_verified
        self.assertIs(verified(Connection(), None, 0, 0, 1), True)
        self.assertIs(verified(Connection(), None, 10, 0, 0), False)
        self.assertIs(verified(object(), None, 0, 0, 1), False)
        Connection.handshake.answer = "yes"
        self.assertIs(verified(Connection(), None, 0, 0, 1), False)

    async def test_minimum_version(self) -> None:
        """TLS 1.2 is refused unless it is allowed."""
        port = self.serve(
            self.authority.issue(),
            insecurelyLowerMinimumTo=TLSVersion.TLSv1_2,
            lowerMaximumSecurityTo=TLSVersion.TLSv1_2,
        )
        detail = await self.refused(Kind.TLS_ALERT_RECEIVED, port)
        self.assertIn('set tls.min_version to "TLSv1.2"', detail)
        protocol = await self.connect(self.client(min_version="TLSv1.2"), port)
        await protocol.answered
        await self.close(protocol)

    async def test_resumption(self) -> None:
        """The second connection resumes the first's session."""
        port = self.serve(self.authority.issue())
        client = self.client()
        reused = []
        for _ in range(2):
            protocol = await self.connect(client, port)
            await protocol.answered
            ssl = protocol.transport.getHandle()._ssl
            reused.append(SSL._lib.SSL_session_reused(ssl))  # type: ignore[attr-defined]
            await self.close(protocol)
        self.assertEqual(reused, [0, 1])

    async def test_written_at_once(self) -> None:
        """What is written goes to the socket without waiting for another turn of the reactor."""
        protocol = await self.connect(self.client(), self.serve(self.authority.issue()))
        await protocol.answered
        before = reactor.getDelayedCalls()
        protocol.transport.write(b"more")
        self.assertEqual(reactor.getDelayedCalls(), before)
        await self.close(protocol)
        self.assertEqual(self.server.connections[0].received, b"secretmore")

    async def test_nothing_between(self) -> None:
        """From the first data on TLS gives it to the application's protocol, and keeps nothing of the handshake."""
        factory = Maker(ClientSide)
        kept = weakref.ref(factory)
        protocol: Any = await self.connect(self.client(), self.serve(self.authority.issue()), factory=factory)
        del factory
        await protocol.answered
        self.assertIs(protocol.transport.wrappedProtocol, protocol)
        self.assertIsNone(kept())
        await self.close(protocol)

    async def test_end_before_data(self) -> None:
        """An end that comes before any data reaches the application's protocol."""
        port = self.serve(self.authority.issue())
        self.patch(ServerSide, "dataReceived", lambda side, data: side.transport.loseConnection())
        protocol = await self.connect(self.client(), port)
        [reason] = await protocol.lost
        self.assertIsNotNone(reason.check(ConnectionDone))
        await self.server.connections[0].lost

    async def test_session_lifetime(self) -> None:
        """A session is resumed for an hour after its certificate was seen, however often it was in between."""
        port = self.serve(self.authority.issue())
        time = 0.0
        resumed: list[bool] = []
        client = self.client(now=lambda: time, shook_hands=lambda error, again: resumed.append(again))
        for time in (0.0, 1800.0, 3500.0, 3700.0, 5000.0):  # noqa: B007  # the client's clock reads it
            protocol = await self.connect(client, port)
            await protocol.answered
            await self.close(protocol)
        self.assertEqual(resumed, [False, True, True, False, True])

    async def test_not_tls(self) -> None:
        """A server that does not speak TLS fails as something else than a bad certificate."""
        port = reactor.listenTCP(0, self.server, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        error = await self.assertFailure(self.connect(self.client(), port), ProxyError)
        self.assertIs(error.kind, Kind.TLS_PROTOCOL_ERROR)
        self.assertNotIn(b"secret", self.server.connections[0].received)
        if not self.server.connections[0].lost.called:
            await self.server.connections[0].lost

    async def test_truncation(self) -> None:
        """An end with close_notify is ConnectionDone; a FIN without one is not (S16)."""
        port = self.serve(self.authority.issue())
        client = self.client()
        for orderly in (True, False):
            protocol = await self.connect(client, port)
            await protocol.answered
            tls: Any = self.server.connections[-1].transport
            (tls if orderly else tls.transport).loseConnection()
            [reason] = await protocol.lost
            self.assertIs(reason.check(ConnectionDone) is not None, orderly)


class SettingsTests(SynchronousTestCase):
    """What the client is made from, and how it gives up."""

    def test_problems(self) -> None:
        """Every file that cannot be used is named in one error, whichever setting names it."""
        path = Path(self.mktemp()).absolute()
        path.write_bytes(b"nonsense")
        files = ClientCertificateFiles("/no/such/certificate", "/no/such/key")
        settings = TLSSettings(
            ca_file=str(path), extra_ca_file="/no/such/file", client_certificates={"a.example:443": files}
        )
        error = self.assertRaises(TLSFileError, TLSClient, settings)
        self.assertEqual(
            error.problems,
            (
                ("ca_file", f"{path}: holds no certificate in PEM"),
                ("extra_ca_file", "/no/such/file: No such file or directory"),
                ("client_certificates", "a.example:443: /no/such/certificate: No such file or directory"),
            ),
        )

    def start(self) -> tuple[Any, Deferred[Any]]:
        inner = WaitingEndpoint()
        client = TLSClient(TLSSettings())
        connecting: Deferred[Any] = client.wrap(inner, "a.example", 443).connect(Factory.forProtocol(ClientSide))
        return inner.accept(), connecting

    def test_cancel(self) -> None:
        """Cancelling, as at a deadline, ends a connection in the middle of its handshake."""
        wire, connecting = self.start()
        self.assertTrue(wire.take().startswith(b"\x16\x03"))
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertTrue(wire.aborted)

    def test_hybrid_key_exchange(self) -> None:
        """The first message offers a share of X25519MLKEM768, so that what the host records stays sealed for longer."""
        wire, connecting = self.start()
        self.assertIn(b"\x11\xec\x04\xc0", wire.take())  # the group's number and its share's length, 1216 bytes
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)

    def test_closed(self) -> None:
        """A connection that ends during the handshake says so."""
        wire, connecting = self.start()
        wire.lose(ConnectionDone())
        error = self.failureResultOf(connecting, ProxyError).value
        self.assertIs(error.kind, Kind.TLS_PROTOCOL_ERROR)
        self.assertIn("during the TLS handshake", error.detail)

    def test_inner_failure(self) -> None:
        """What the inner endpoint fails with passes through."""
        inner = WaitingEndpoint()
        client = TLSClient(TLSSettings())
        connecting = client.wrap(inner, "a.example", 443).connect(Factory.forProtocol(ClientSide))
        inner.refuse(ProxyError(Kind.DNS_ERROR, "no"))
        self.assertIs(self.failureResultOf(connecting, ProxyError).value.kind, Kind.DNS_ERROR)
