"""Connections from the enclave to destinations."""

from __future__ import annotations

from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.enclave.dialer import Dialer
from nitroproxy.target import Origin
from nitroproxy.tls.client import TLSClient
from nitroproxy.tls.settings import TLSSettings
from tests.wire import WaitingEndpoint, split_head


class DialerTests(SynchronousTestCase):
    """Through the relay, with TLS for https."""

    def setUp(self) -> None:
        self.relay = WaitingEndpoint()
        self.dialer = Dialer(self.relay, TLSClient(TLSSettings()))

    def test_https(self) -> None:
        """Only CONNECT with the request's id is sent before TLS."""
        endpoint = self.dialer.endpoint_for(Origin("https", "a.example", 443), [(b"X-Request-Id", b"an-id")])
        endpoint.connect(Factory.forProtocol(Protocol))
        wire = self.relay.accept()
        start, headers, _ = split_head(wire.take())
        self.assertEqual(start, b"CONNECT a.example:443 HTTP/1.1")
        self.assertEqual(headers[b"x-request-id"], b"an-id")
        wire.receive(b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertTrue(wire.take().startswith(b"\x16\x03"), "a TLS handshake")

    def test_http(self) -> None:
        """For a plaintext destination the tunnel itself is the connection."""
        endpoint = self.dialer.endpoint_for(Origin("http", "a.example", 80), [])
        connecting = endpoint.connect(Factory.forProtocol(Protocol))
        wire = self.relay.accept()
        wire.receive(b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertIsInstance(self.successResultOf(connecting), Protocol)

    def test_what_an_end_proves(self) -> None:
        """Only TLS proves that an end was intended: without it the relay's reset reads like one (S16)."""
        self.assertTrue(self.dialer.verifies_end(Origin("https", "a.example", 443)))
        self.assertFalse(self.dialer.verifies_end(Origin("http", "a.example", 80)))
        self.assertFalse(self.dialer.verifies_end("enclave"))
