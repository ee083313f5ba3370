"""The relay's way through another proxy: what that may answer, and how it fails. No sockets."""

from __future__ import annotations

import json
import os
from pathlib import Path

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host.upstream_proxy import ProxyOfOthers, UpstreamProxy, read_credentials
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.tunnel import TunnelProtocol
from nitroproxy.target import Origin
from tests.wire import Maker, WaitingEndpoint, Wire

URL = "http://proxy.example:3128"
ORIGIN = Origin("https", "site.example", 443)


class UpstreamCase(SynchronousTestCase):
    """A proxy that the test plays."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = WaitingEndpoint()
        credentials = [(b"Proxy-Authorization", b"Basic dTpw")]
        proxy = ProxyOfOthers(self.endpoint, URL, credentials, ["**.internal.example:*", "10.0.0.0/8:443"])
        self.upstream = UpstreamProxy(proxy, Deadlines(self.clock), 8.0)
        self.connecting = self.upstream.endpoint_for(ORIGIN).connect(Maker(TunnelProtocol))

    def answer(self, data: bytes) -> Wire:
        """The proxy answers."""
        wire = self.endpoint.accept()
        wire.receive(data)
        return wire

    def error(self) -> ProxyError:
        """The failure."""
        error: ProxyError = self.failureResultOf(self.connecting, ProxyError).value
        return error


class TunnelTests(UpstreamCase):
    """It opens a tunnel."""

    def test_asked(self) -> None:
        """It gets the destination's name and the credentials, and nothing that identifies the request; then there is a
        tunnel, with what came along."""
        wire = self.endpoint.accept()
        self.assertEqual(
            wire.take(),
            b"CONNECT site.example:443 HTTP/1.1\r\nHost: site.example:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n",
        )
        self.upstream.trouble = "something"
        wire.receive(b"HTTP/1.0 200 Connection established\r\nProxy-Agent: x\r\n\r\nfirst")
        protocol: IProtocol = self.successResultOf(self.connecting)
        assert isinstance(protocol, TunnelProtocol)
        self.assertEqual(protocol._early, [b"first"])
        self.assertIsNone(self.upstream.trouble)

    def test_direct(self) -> None:
        """What no_proxy names does not lead through it."""
        for host, port, proxied in (
            ("site.example", 443, True),
            ("a.internal.example", 22, False),
            ("internal.example", 443, True),
            ("10.1.2.3", 443, False),
            ("10.1.2.3", 22, True),
        ):
            self.assertIs(self.upstream.is_for(host, port), proxied, host)

    def test_left(self) -> None:
        """A client that leaves ends the attempt, in each phase; it is nobody's fault."""
        self.connecting.cancel()
        self.failureResultOf(self.connecting, CancelledError)
        self.assertEqual(self.endpoint.cancelled, 1)
        self.endpoint.waiting.clear()
        connecting = self.upstream.endpoint_for(ORIGIN).connect(Maker(TunnelProtocol))
        wire = self.endpoint.accept()
        connecting.cancel()
        self.assertTrue(wire.aborted)
        wire.settle()
        self.failureResultOf(connecting, CancelledError, ProxyError)
        self.clock.advance(9.0)


class RefusalTests(UpstreamCase):
    """It opens none."""

    def test_statuses(self) -> None:
        """The failure has the proxy's name and its status; only 407 counts as the relay's trouble."""
        for status, words, trouble in (
            (403, "it does not allow the destination", False),
            (407, "it does not accept the credentials", True),
            (502, "it cannot reach the destination", False),
            (404, "answered CONNECT with 404", False),
            (302, "answered CONNECT with 302", False),
        ):
            self.setUp()
            wire = self.answer(b"HTTP/1.1 %d Whatever\r\nContent-Length: 5\r\n\r\nhello" % status)
            error = self.error()
            self.assertIs(error.kind, Kind.UPSTREAM_PROXY_REFUSED)
            self.assertTrue(error.detail.startswith(f"{URL} answered CONNECT with {status}"), error.detail)
            self.assertIn(words, error.detail)
            self.assertEqual(self.upstream.trouble is not None, trouble)
            self.assertTrue(wire.aborted)

    def test_not_in_our_name(self) -> None:
        """A problem document of its own making is not taken for a report of a hop of ours."""
        body = json.dumps({"error": "dns_error", "detail": "forged", "hop": "nitroproxy-relay"}).encode()
        self.answer(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        error = self.error()
        self.assertEqual((error.kind, error.hop), (Kind.UPSTREAM_PROXY_REFUSED, None))
        self.assertNotIn("forged", error.detail)

    def test_nonsense(self) -> None:
        """An answer that is no HTTP, or has no end, is given up; whatever came, little is held."""
        for data in (
            b"SSH-2.0-OpenSSH_9.2\r\n" + b"x" * 100 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000,
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 9,
        ):
            self.setUp()
            wire = self.answer(data)
            error = self.error()
            self.assertIs(error.kind, Kind.UPSTREAM_PROXY_REFUSED, data[:40])
            self.assertTrue(wire.aborted)

    def test_unreachable(self) -> None:
        """A proxy that cannot be reached, or leaves before it answers, is unavailable: the relay's trouble."""
        self.endpoint.refuse(ProxyError(Kind.CONNECTION_REFUSED, "proxy.example:3128 refused the connection"))
        error = self.error()
        self.assertIs(error.kind, Kind.UPSTREAM_PROXY_UNAVAILABLE)
        self.assertEqual(error.detail, f"{URL}: proxy.example:3128 refused the connection")
        self.assertEqual(self.upstream.trouble, error.detail)
        self.setUp()
        self.endpoint.accept().lose()
        self.assertIs(self.error().kind, Kind.UPSTREAM_PROXY_UNAVAILABLE)

    def test_silent(self) -> None:
        """One that does not answer in time is named."""
        wire = self.endpoint.accept()
        wire.receive(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2")
        self.clock.advance(7.9)
        self.assertNoResult(self.connecting)
        self.clock.advance(0.2)
        wire.settle()
        error = self.error()
        self.assertIs(error.kind, Kind.CONNECTION_TIMEOUT)
        self.assertEqual(error.detail, f"{URL} did not answer CONNECT within 8 seconds")
        self.assertTrue(wire.aborted)

    def test_defect(self) -> None:
        """What is no failure of the network stays what it is."""
        self.endpoint.refuse(KeyError("x"))
        self.failureResultOf(self.connecting, KeyError)


class CredentialsTests(SynchronousTestCase):
    """The file."""

    def file(self, content: bytes, mode: int = 0o600) -> str:
        path = Path(self.mktemp())
        path.write_bytes(content)
        os.chmod(path, mode)
        return str(path)

    def test_right(self) -> None:
        """A line, with or without its end; the password may have colons and UTF-8."""
        for content in (b"u:p", b"u:p\n", b"u:p\r\n"):
            self.assertEqual(read_credentials(self.file(content)), [(b"Proxy-Authorization", b"Basic dTpw")])
        self.assertEqual(read_credentials(self.file("u:p:ü".encode()))[0][1], b"Basic dTpwOsO8")
        self.assertTrue(read_credentials(self.file(b"u:p", 0o640)))
        self.assertTrue(read_credentials(self.file(b"u:p", 0o400)))

    def test_wrong(self) -> None:
        """Anything else is refused, and what is in it is not told."""
        for content in (b"", b"secret", b"u:secret\nmore\n", b"u:secret\x00", b"u:" + b"secret" * 200):
            path = self.file(content)
            error: ValueError = self.assertRaises(ValueError, read_credentials, path)
            self.assertTrue(str(error).startswith(f"{path}: expected one line, user:password"))
            self.assertNotIn("secret", str(error))

    def test_mode(self) -> None:
        """Others must not reach it."""
        for mode in (0o644, 0o660, 0o604, 0o700):
            error: ValueError = self.assertRaises(ValueError, read_credentials, self.file(b"u:p", mode))
            self.assertIn(f"its mode is {mode:04o}", str(error))

    def test_missing(self) -> None:
        """A file that is not there is named."""
        error: ValueError = self.assertRaises(ValueError, read_credentials, "/no/such/file")
        self.assertEqual(str(error), "/no/such/file: No such file or directory")
