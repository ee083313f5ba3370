"""Failures as responses, and back."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.problem import problem, read_problem


class ProblemTests(SynchronousTestCase):
    """RFC 9457 and RFC 9209."""

    def test_document(self) -> None:
        """The document names kind, hop and request; the headers say the same to machines."""
        headers, body = problem(ProxyError(Kind.ENCLAVE_UNAVAILABLE, "gone"), "nitroproxy-host", "an-id")
        document = json.loads(body)
        self.assertEqual(document["type"], "urn:nitroproxy:error:enclave_unavailable")
        self.assertEqual((document["status"], document["detail"]), (503, "gone"))
        self.assertEqual((document["hop"], document["request_id"]), ("nitroproxy-host", "an-id"))
        self.assertIn((b"Proxy-Status", b"nitroproxy-host; error=destination_unavailable"), headers)
        self.assertIn((b"Retry-After", b"1"), headers)
        self.assertIn((b"Content-Length", b"%d" % len(body)), headers)

    def test_read_back(self) -> None:
        """A failure that one hop reports is passed on by the next in the name of the first."""
        _, body = problem(ProxyError(Kind.DNS_ERROR, "no name", "nitroproxy-relay"), "nitroproxy-enclave", "an-id")
        error = read_problem(body)
        assert error is not None
        self.assertEqual((error.kind, error.detail, error.hop), (Kind.DNS_ERROR, "no name", "nitroproxy-relay"))

    def test_not_ours(self) -> None:
        """A document of another kind of server is not trusted."""
        for body in (
            b"",
            b"<html>",
            b"[]",
            b"{}",
            b'{"error": "nothing", "detail": "x", "hop": "y"}',
            b'{"error": "dns_error", "detail": 5, "hop": "y"}',
            b'{"error": "dns_error", "detail": "x", "hop": "y; error=evil"}',
            b'{"error": "dns_error", "detail": "x", "hop": "y"}',
            b'{"error": "dns_error", "detail": "x", "hop": "nitroproxy-relay\\n"}',
            b'{"error": "dns_error", "detail": "x", "hop": "' + b"h" * 15_000 + b'"}',
            b'{"error": ["dns_error"], "detail": "x", "hop": "y"}',
            b"[" * 10_000,
        ):
            self.assertIsNone(read_problem(body))

    def test_long_detail_is_cut(self) -> None:
        """A detail cannot inflate a response, however JSON escapes its characters (K4)."""
        for text in ("x", "\x00", "é", "🦊", "\udc80"):
            _, body = problem(ProxyError(Kind.DNS_ERROR, text * 100_000), "nitroproxy-host", "an-id")
            self.assertLess(len(body), 4096)
            self.assertIsNotNone(read_problem(body.replace(b'"nitroproxy-host"', b'"nitroproxy-relay"')))
