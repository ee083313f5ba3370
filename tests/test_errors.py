"""The kinds of failures."""

from __future__ import annotations

import errno

from twisted.internet.error import ConnectError, DNSLookupError, TimeoutError
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import DETAIL_BYTES, RETRY_AFTER_SECONDS, Kind, ProxyError, cut, reason_of

#: Proxy error types that RFC 9209 section 2.3 registers.
REGISTERED = frozenset(
    {
        "dns_timeout",
        "dns_error",
        "destination_not_found",
        "destination_unavailable",
        "destination_ip_prohibited",
        "destination_ip_unroutable",
        "connection_refused",
        "connection_terminated",
        "connection_timeout",
        "connection_read_timeout",
        "connection_write_timeout",
        "connection_limit_reached",
        "tls_protocol_error",
        "tls_certificate_error",
        "tls_alert_received",
        "http_request_error",
        "http_request_denied",
        "http_response_incomplete",
        "http_response_header_section_size",
        "http_response_header_size",
        "http_response_body_size",
        "http_response_trailer_section_size",
        "http_response_trailer_size",
        "http_response_transfer_coding",
        "http_response_content_coding",
        "http_response_timeout",
        "http_upgrade_failed",
        "http_protocol_error",
        "proxy_internal_response",
        "proxy_internal_error",
        "proxy_configuration_error",
        "proxy_loop_detected",
    }
)


class KindTests(SynchronousTestCase):
    """The table of kinds."""

    def test_registered(self) -> None:
        """Statuses are errors, and the Proxy-Status tokens are the registered ones."""
        for kind in Kind:
            self.assertIn(kind.proxy_status, REGISTERED)
            self.assertTrue(400 <= kind.status < 600)

    def test_names(self) -> None:
        """A kind is found by its public name, and only by that."""
        for kind in Kind:
            self.assertIs(Kind.from_public_name(kind.public_name), kind)
        self.assertIsNone(Kind.from_public_name("DNS_ERROR"))
        self.assertIsNone(Kind.from_public_name("nothing"))

    def test_passing_failures(self) -> None:
        """Only errors with status 503 may ask a client to come back."""
        self.assertEqual({kind.status for kind in RETRY_AFTER_SECONDS}, {503})

    def test_detail_is_cut(self) -> None:
        """A detail has at most 512 bytes, wherever the error goes, and can always be encoded (K4)."""
        for detail in ("\\" * 16_000, "é" * 16_000, "🦊" * 16_000, "\udc80" * 16_000, "x" * 511 + "é"):
            error = ProxyError(Kind.DNS_ERROR, detail)
            for text in (error.detail, *map(str, error.args[1:2])):
                size = len(text.encode("utf-8"))
                self.assertTrue(DETAIL_BYTES - 6 <= size <= DETAIL_BYTES, size)
                self.assertTrue(text.endswith("…"))
        for whole in ("x" * 512, "é" * 256, ""):
            self.assertEqual(ProxyError(Kind.DNS_ERROR, whole).detail, whole)

    def test_cut(self) -> None:
        """A short detail stays as it is, except for characters that UTF-8 cannot encode."""
        self.assertEqual(cut("naïve", 6), "naïve")
        self.assertEqual(cut("naïve", 5), "na…")
        self.assertEqual(cut("a\udcffb", 100), "a\\udcffb")

    def test_text(self) -> None:
        """The text of an error is its name and its detail."""
        self.assertEqual(str(ProxyError(Kind.DNS_ERROR, "no such name")), "dns_error: no such name")


class ReasonTests(SynchronousTestCase):
    """What an exception is said to be about."""

    def test_once(self) -> None:
        """The reason and nothing twice, whether Python or Twisted raised it."""
        for error, reason in (
            (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "Connection refused"),
            (ConnectError(errno.ECONNREFUSED, "Connection refused"), "Connection refused"),
            (DNSLookupError("no such name"), "no such name"),
            (TimeoutError(), "User timeout caused connection failure"),
            (ValueError("not so"), "not so"),
            (ValueError(), "ValueError"),
            (KeyError(1), "1"),
        ):
            self.assertEqual(reason_of(error), reason)
