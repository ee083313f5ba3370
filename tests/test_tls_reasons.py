"""`nitroproxy.tls.reasons`: every failure in words that a person can act on."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind
from nitroproxy.tls.reasons import chain_reason, handshake_failure, refusal, shown
from tests.tlsmemory import Authority

NOW = datetime(2026, 11, 28, 1, 2, 3, tzinfo=UTC)


class ChainTests(SynchronousTestCase):
    """OpenSSL's verification errors."""

    def setUp(self) -> None:
        root = Authority()
        self.authority = Authority("middle", root)
        before, after = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
        self.leaf = self.authority.issue(not_before=before, not_after=after).certificate

    def test_dates(self) -> None:
        """Expired and not yet valid: the date, and this machine's clock, which may be what is wrong."""
        self.assertEqual(
            chain_reason(self.leaf, 10, 0, NOW),
            "it expired on 2026-02-03 04:05:06 UTC; the clock here says 2026-11-28 01:02:03 UTC",
        )
        self.assertEqual(
            chain_reason(self.leaf, 9, 0, NOW),
            "it is not valid before 2026-01-02 00:00:00 UTC; the clock here says 2026-11-28 01:02:03 UTC",
        )

    def test_authority(self) -> None:
        """What is wrong with an authority's certificate names that authority."""
        reason = chain_reason(self.authority.certificate, 24, 1, NOW)
        self.assertTrue(reason.startswith('the authority\'s certificate "CN=middle" was used to issue'), reason)

    def test_unknown_issuer(self) -> None:
        """An unknown issuer is named, with the two cures: trust it, or let the destination send intermediates."""
        for number in (2, 20, 21):
            reason = chain_reason(self.leaf, number, 0, NOW)
            self.assertIn('was issued by "CN=middle", which is not trusted', reason)
            self.assertIn("tls.extra_ca_file", reason)
            self.assertIn("must send its intermediate certificates", reason)

    def test_self_signed(self) -> None:
        """A self-signed certificate, or one above it, names the cure for a private authority."""
        self.assertIn("it is self-signed", chain_reason(self.leaf, 18, 0, NOW))
        reason = chain_reason(self.authority.certificate, 19, 1, NOW)
        self.assertIn('the self-signed "CN=middle", which is not trusted', reason)
        self.assertIn("tls.extra_ca_file", reason)

    def test_others(self) -> None:
        """Every other error has words or its number."""
        self.assertIn("not for servers", chain_reason(self.leaf, 26, 0, NOW))
        self.assertIn("error 999", chain_reason(self.leaf, 999, 0, NOW))


class FailureTests(SynchronousTestCase):
    """Alerts, and what OpenSSL itself gives up for."""

    def failure(self, text: str, min_version: str = "TLSv1.3", identity: str | None = None) -> tuple[Kind, str]:
        error = handshake_failure("a.example", [text], min_version=min_version, identity=identity)
        self.assertIn(text, error.detail)
        return error.kind, error.detail

    def test_version(self) -> None:
        """A destination without TLS 1.3: the setting that keeps it out, and what to set it to."""
        for text in ("tlsv1 alert protocol version", "unsupported protocol", "sslv3 alert handshake failure"):
            kind, detail = self.failure(text)
            self.assertIs(kind, Kind.TLS_ALERT_RECEIVED if "alert" in text else Kind.TLS_PROTOCOL_ERROR)
            self.assertIn('set tls.min_version to "TLSv1.2"', detail)
            self.assertNotIn("set tls.min_version", self.failure(text, "TLSv1.2")[1])

    def test_alpn(self) -> None:
        """A destination that only speaks HTTP/2: that it does, and the way there."""
        kind, detail = self.failure("tlsv1 alert no application protocol")
        self.assertIs(kind, Kind.TLS_ALERT_RECEIVED)
        self.assertIn("HTTP/2 only", detail)
        self.assertIn("CONNECT", detail)

    def test_client_certificate(self) -> None:
        """A destination that wants a client certificate, and one that does not take the one it was given."""
        self.assertIn("tls.client_certificates", self.failure("tlsv13 alert certificate required")[1])
        self.assertIn("may want a client certificate", self.failure("sslv3 alert bad certificate")[1])
        detail = self.failure("tlsv1 alert unknown ca", identity="*.example:443")[1]
        self.assertIn("does not take the client certificate that tls.client_certificates has for *.example:443", detail)

    def test_name(self) -> None:
        """A destination that does not know the name."""
        self.assertIn("no site of this name", self.failure("tlsv1 unrecognized name alert")[1])

    def test_not_tls(self) -> None:
        """What is no TLS at all."""
        self.assertIn("does not speak TLS", self.failure("wrong version number")[1])

    def test_unknown(self) -> None:
        """An error without words of ours keeps OpenSSL's, or says that there are none."""
        self.assertEqual(
            self.failure("tlsv1 alert internal error")[1],
            "a.example ended the TLS handshake: tlsv1 alert internal error",
        )
        detail = handshake_failure("a.example", [], min_version="TLSv1.3", identity=None).detail
        self.assertIn("no reason given", detail)

    def test_certificate(self) -> None:
        """A chain that OpenSSL refused without calling back is a certificate's refusal."""
        self.assertIs(self.failure("certificate verify failed")[0], Kind.TLS_CERTIFICATE_ERROR)


class ShownTests(SynchronousTestCase):
    """What comes from outside."""

    def test_shown(self) -> None:
        """It is printable and short."""
        self.assertEqual(shown("a\r\n\x00b"), "a???b")
        self.assertEqual(len(shown("x" * 70_000)), 80)

    def test_bounded(self) -> None:
        """A refusal's detail stays within 512 bytes, but for the longest of hosts."""
        self.assertLess(len(refusal("a.example", "x" * 70_000).detail.encode()), 512)
