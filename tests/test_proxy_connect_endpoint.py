"""The way through another hop by CONNECT, and the failures it reports."""

from __future__ import annotations

import weakref

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.connect_endpoint import ConnectEndpoint, HopEndpoint
from nitroproxy.proxy.problem import problem, read_problem
from nitroproxy.proxy.tunnel import TunnelProtocol
from tests.wire import Maker, WaitingEndpoint


class Remember(Protocol):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


class ConnectEndpointTests(SynchronousTestCase):
    """CONNECT from the client's side."""

    def setUp(self) -> None:
        self.proxy = WaitingEndpoint()
        self.connecting = ConnectEndpoint(self.proxy, b"site.example:443", [(b"X-Request-Id", b"an-id")]).connect(
            Factory.forProtocol(Remember)
        )

    def test_established(self) -> None:
        """The protocol is made once the proxy says 200; bytes that came along are its first."""
        wire = self.proxy.accept()
        head = b"CONNECT site.example:443 HTTP/1.1\r\nHost: site.example:443\r\nX-Request-Id: an-id\r\n\r\n"
        self.assertEqual(wire.take(), head)
        self.assertNoResult(self.connecting)
        wire.receive(b"HTTP/1.1 200 Connection est")
        wire.receive(b"ablished\r\n\r\nfirst")
        protocol = self.successResultOf(self.connecting)
        assert isinstance(protocol, Remember)
        wire.receive(b" second")
        self.assertEqual(protocol.received, b"first second")
        wire.lose()
        self.assertTrue(protocol.lost)

    def test_nothing_of_the_beginning_is_kept(self) -> None:
        """A connection that is established keeps alive no factory, no CONNECT and no answer to it."""
        factory = Maker(Remember)
        kept = weakref.ref(factory)
        connecting = ConnectEndpoint(self.proxy, b"a:1", []).connect(factory)
        del factory
        self.proxy.waiting.pop(0)
        wire = self.proxy.accept()
        self.assertIsNotNone(kept())
        wire.receive(b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertIsInstance(self.successResultOf(connecting), Remember)
        self.assertIsNone(kept())

    def test_half_close_is_the_protocols(self) -> None:
        """Whether the connection half-closes is the inner protocol's to say."""
        wire = self.proxy.accept()
        wire.receive(b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertFalse(IHalfCloseableProtocol.providedBy(wire.protocol))
        connecting = ConnectEndpoint(self.proxy, b"a:1", []).connect(Factory.forProtocol(TunnelProtocol))
        wire = self.proxy.accept()
        wire.receive(b"HTTP/1.1 200 OK\r\n\r\n")
        self.successResultOf(connecting)
        self.assertTrue(IHalfCloseableProtocol.providedBy(wire.protocol))

    def refused(self, answer: bytes) -> ProxyError:
        wire = self.proxy.accept()
        wire.receive(answer)
        self.assertTrue(wire.aborted)
        error: ProxyError = self.failureResultOf(self.connecting, ProxyError).value
        return error

    def test_problem_is_handed_on(self) -> None:
        """The failure that the other hop tells of arrives as that failure, with the hop that found it."""
        headers, body = problem(ProxyError(Kind.ADDRESS_DENIED, "it is private"), "nitroproxy-relay", "id")
        length = dict(headers)[b"Content-Length"]
        error = self.refused(b"HTTP/1.1 403 Forbidden\r\nContent-Length: " + length + b"\r\n\r\n" + body)
        self.assertEqual(
            (error.kind, error.detail, error.hop), (Kind.ADDRESS_DENIED, "it is private", "nitroproxy-relay")
        )

    def test_refusal_without_end(self) -> None:
        """A refusal that does not end is read up to 16 KiB, whole or in pieces, and is then the proxy's fault."""
        for size in (1, 1000, 60000):
            connecting = ConnectEndpoint(self.proxy, b"a:1", []).connect(Factory.forProtocol(Remember))
            self.proxy.waiting.reverse()
            wire = self.proxy.accept()
            wire.receive(b"HTTP/1.1 502 No\r\nTransfer-Encoding: chunked\r\n\r\n")
            chunk = b"%x\r\n" % size + b"x" * size + b"\r\n"
            for _ in range(16384 // size):
                self.assertFalse(wire.aborted)
                wire.receive(chunk)
            wire.receive(chunk)
            self.assertTrue(wire.aborted, size)
            error = self.failureResultOf(connecting, ProxyError).value
            self.assertEqual(
                (error.kind, error.detail), (Kind.HTTP_PROTOCOL_ERROR, "the next proxy answered CONNECT with 502")
            )

    def test_refusal_until_close(self) -> None:
        """A refusal without a length is not waited for."""
        self.assertIs(self.refused(b"HTTP/1.1 502 No\r\n\r\nx").kind, Kind.HTTP_PROTOCOL_ERROR)

    def test_interim(self) -> None:
        """A 1xx before the answer is passed over (RFC 9110 section 15.2); a 101 is no answer to CONNECT."""
        wire = self.proxy.accept()
        wire.receive(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        self.assertNoResult(self.connecting)
        wire.receive(b"HTTP/1.1 200 OK\r\n\r\nfirst")
        protocol = self.successResultOf(self.connecting)
        assert isinstance(protocol, Remember)
        self.assertEqual(protocol.received, b"first")
        self.connecting = ConnectEndpoint(self.proxy, b"a:1", []).connect(Factory.forProtocol(Remember))
        self.assertIs(self.refused(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n").kind, Kind.HTTP_PROTOCOL_ERROR)

    def test_interim_flood(self) -> None:
        """More than eight are a violation."""
        error = self.refused(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9)
        self.assertIn("more than 8 interim responses", error.detail)

    def test_no_protocol(self) -> None:
        """A factory that makes no protocol is a defect of ours, and is reported as one."""
        connecting = ConnectEndpoint(self.proxy, b"a:1", []).connect(Maker(lambda: None))  # type: ignore[arg-type, return-value]
        self.proxy.waiting.pop(0)
        wire = self.proxy.accept()
        wire.receive(b"HTTP/1.1 200 OK\r\n\r\n")
        error = self.failureResultOf(connecting, ProxyError).value
        self.assertEqual(
            (error.kind, error.detail), (Kind.INTERNAL_ERROR, "internal error: no protocol for the connection")
        )
        self.assertTrue(wire.aborted)

    def test_other_answers(self) -> None:
        """Any other answer is the proxy's fault."""
        error = self.refused(b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno")
        self.assertIs(error.kind, Kind.HTTP_PROTOCOL_ERROR)

    def test_lost(self) -> None:
        """A connection that ends before the answer fails."""
        self.proxy.accept().lose()
        self.assertIs(self.failureResultOf(self.connecting, ProxyError).value.kind, Kind.CONNECTION_TERMINATED)

    def test_cancel(self) -> None:
        """Cancelling gives up the connection, whether it is up or not."""
        wire = self.proxy.accept()
        self.connecting.cancel()
        self.failureResultOf(self.connecting)
        self.assertTrue(wire.aborted)
        wire.settle()
        connecting = ConnectEndpoint(self.proxy, b"a:1", []).connect(Factory.forProtocol(Remember))
        connecting.cancel()
        self.failureResultOf(connecting)
        self.assertEqual(self.proxy.cancelled, 1)


class HopEndpointTests(SynchronousTestCase):
    """Failing to reach a hop is said in its name."""

    def test_failure(self) -> None:
        """Whatever the endpoint fails with becomes the hop's failure, with the reason."""
        inner = WaitingEndpoint()
        hop = HopEndpoint(inner, Kind.ENCLAVE_UNAVAILABLE, "cannot reach the enclave at vsock 16:5000", 65536)
        connecting = hop.connect(Factory.forProtocol(Remember))
        inner.refuse(ConnectionRefusedError(111, "nobody listens"))
        error = self.failureResultOf(connecting, ProxyError).value
        self.assertIs(error.kind, Kind.ENCLAVE_UNAVAILABLE)
        self.assertIn("vsock 16:5000", error.detail)
        self.assertIn("nobody listens", error.detail)

    def attempt(self) -> tuple[WaitingEndpoint, Deferred[IProtocol], list[Failure | None]]:
        inner, tried = WaitingEndpoint(), list[Failure | None]()
        hop = HopEndpoint(inner, Kind.ENCLAVE_UNAVAILABLE, "x", 65536, tried.append)
        return inner, hop.connect(Factory.forProtocol(Remember)), tried

    def test_counted(self) -> None:
        """Each attempt is reported once: its failure, or None."""
        inner, connecting, tried = self.attempt()
        inner.accept()
        self.successResultOf(connecting)
        self.assertEqual(tried, [None])
        inner, connecting, tried = self.attempt()
        inner.refuse(ConnectionRefusedError(111, "nobody listens"))
        self.failureResultOf(connecting, ProxyError)
        [failure] = tried
        assert failure is not None
        failure.trap(ConnectionRefusedError)

    def test_cancelled_is_not_counted(self) -> None:
        """An attempt that is cancelled has not failed, in whichever way the endpoint says that it was."""
        for raised in (None, ConnectingCancelledError(None), CancelledError()):
            inner, connecting, tried = self.attempt()
            if raised is None:
                connecting.cancel()
            else:
                inner.refuse(raised)
            self.failureResultOf(connecting, CancelledError)
            self.assertEqual(tried, [])

    def test_defect(self) -> None:
        """An exception that says nothing of the network is passed on as it is: the hop may well be there."""
        inner, connecting, tried = self.attempt()
        inner.refuse(ZeroDivisionError())
        self.failureResultOf(connecting, ZeroDivisionError)
        self.assertEqual(len(tried), 1)

    def test_buffer(self) -> None:
        """The connection holds at most the configured bytes: half to send and half being read."""
        inner = WaitingEndpoint()
        HopEndpoint(inner, Kind.ENCLAVE_UNAVAILABLE, "x", 65536).connect(Factory.forProtocol(Remember))
        wire = inner.accept()
        self.assertEqual(getattr(wire, "bufferSize", None), 32768)


class ProblemTests(SynchronousTestCase):
    """Problem documents read back."""

    def test_foreign_documents(self) -> None:
        """What is no problem document of ours is not taken for one."""
        for body in (b"", b"[]", b"{}", b'{"error": "nonsense", "detail": "", "hop": "a"}', b'{"error": 1}'):
            self.assertIsNone(read_problem(body))
        self.assertIsNone(read_problem(b'{"error": "dns_error", "detail": "x", "hop": "a\\r\\nX: y"}'))
