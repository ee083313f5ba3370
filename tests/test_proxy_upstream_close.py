"""`nitroproxy.proxy.upstream`: connections without an exchange end in order, and in bounded time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.settings import PoolSettings
from nitroproxy.proxy.upstream import Pool
from nitroproxy.tls.client import TLSClient
from nitroproxy.tls.settings import TLSSettings
from tests.tlsmemory import Authority, MemoryServer
from tests.wire import GET, OneHop, WaitingEndpoint, Wire

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class CloseTests(SynchronousTestCase):
    """A connection kept in the pool."""

    def setUp(self) -> None:
        self.hop = OneHop()

    def idle(self) -> Wire:
        """A connection without an exchange."""
        client = self.hop.client()
        client.receive(GET)
        upstream = self.hop.endpoint.accept()
        upstream.receive(ANSWER)
        self.assertEqual(self.hop.pool.idle, 1)
        return upstream

    def test_in_order(self) -> None:
        """It is closed, not aborted, after its idle time and when the pool retires; and then is in use no more."""
        for retired in (False, True):
            self.hop = OneHop()
            upstream = self.idle()
            if retired:
                self.hop.pool.retire()
            else:
                self.hop.pass_time(PoolSettings(most=10).idle_timeout + 0.3)
            self.assertEqual((upstream.disconnecting, upstream.aborted), (True, False))
            upstream.settle()
            self.assertEqual((self.hop.pool.open, self.hop.pool.idle), (0, 0))
            self.hop.pass_time(2)
            self.assertFalse(upstream.aborted)

    def test_bounded(self) -> None:
        """A next hop that does not answer the close is cut off a second later."""
        upstream = self.idle()
        self.hop.pool.retire()
        self.hop.pass_time(0.9)
        self.assertFalse(upstream.aborted)
        self.hop.pass_time(0.3)
        self.assertTrue(upstream.aborted)

    def test_data_after_the_close(self) -> None:
        """Bytes that come after the close end it at once."""
        upstream = self.idle()
        self.hop.pool.retire()
        upstream.protocol.dataReceived(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        self.assertTrue(upstream.aborted)


class TLSTests(SynchronousTestCase):
    """A pool of TLS connections."""

    def setUp(self) -> None:
        self.root = Authority()
        roots = Path(self.mktemp())
        roots.write_bytes(self.root.pem)
        self.client = TLSClient(TLSSettings(ca_file=str(roots)))
        self.endpoint = WaitingEndpoint()
        self.hop = OneHop()
        self.pool = self.hop.pool = Pool(
            lambda key, identity: self.client.wrap(self.endpoint, "a.example", 443),
            Deadlines(self.hop.clock),
            PoolSettings(most=10),
            end_is_proof=lambda key: True,
        )

    def request(self, server: MemoryServer) -> tuple[Wire, Wire]:
        """A client that has sent its request to *server*."""
        client = self.hop.client()
        client.receive(GET)
        wire = self.endpoint.accept()
        server.accept(wire)
        return client, wire

    def test_close_notify(self) -> None:
        """An idle TLS connection ends with close_notify, and with the answer to it at once."""
        server = MemoryServer(self.root.issue())
        client, wire = self.request(server)
        server.send(wire, ANSWER)
        self.assertIn(b"200 OK", client.take())
        self.assertEqual(self.pool.idle, 1)
        self.pool.retire()
        server.exchange(wire)
        self.assertTrue(server.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN)
        self.assertFalse(wire.aborted)
        server.tls.shutdown()
        server.exchange(wire)
        self.assertEqual(self.pool.open, 0)

    def test_client_certificate_required(self) -> None:
        """TLS 1.3 reports a missing client certificate after the handshake: the client receives that reason, not
        a lost connection."""

        def insist(context: SSL.Context) -> None:
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *arguments: True)

        client, wire = self.request(MemoryServer(self.root.issue(), insist))
        wire.settle()
        answer: Any = client.take()
        self.assertIn(Kind.TLS_ALERT_RECEIVED.public_name.encode(), answer)
        self.assertIn(b"requires a client certificate: tls.client_certificates", answer)
