"""What would become of a request, without sending it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.commands.policy_check import Verdict, check_destination
from nitroproxy.config.schema import Settings
from nitroproxy.config.traffic import Egress, Tls
from nitroproxy.errors import Kind
from nitroproxy.policy import AddressGuard

NAMES = {"good.example": ["93.184.215.14", "2606:4700::1"], "inner.example": ["93.184.215.14", "10.0.0.1"]}
NAMES["xn--bcher-kva.example"] = ["9.9.9.9"]


def lookup(host: str) -> Sequence[str]:
    """Made-up names; any other is unknown."""
    if host not in NAMES:
        raise OSError("no such name")
    return NAMES[host]


class CheckTests(SynchronousTestCase):
    """The decisions in the order in which a request meets them."""

    settings = Settings(egress=Egress(allow=("*:443", "*:80"), deny=("**.bad.example:*",)))

    def check_destination(self, url: str, settings: Settings | None = None) -> Verdict:
        return check_destination(url, settings or self.settings, AddressGuard([], frozenset), lookup)

    def test_allowed(self) -> None:
        """The rule that allows it, and the addresses that would be dialled."""
        for url in ("https://good.example/x?y=z", "good.example:443", "wss://GOOD.example/"):
            found = self.check_destination(url)
            self.assertIs(found.error, None)
            self.assertIn("'*:443'", found.reason)
            self.assertEqual(found.addresses, ("93.184.215.14", "2606:4700::1"))
            self.assertEqual(found.line, f"{url}  allowed: {found.reason}")

    def test_host_alone(self) -> None:
        """A host without a port means port 443, and the answer names that."""
        for text in ("good.example", "GOOD.example."):
            found = self.check_destination(text)
            self.assertIs(found.error, None)
            self.assertIn("port 443 of 93.184.215.14", found.reason)
        self.assertEqual(self.check_destination("bücher.example").addresses, ("9.9.9.9",))
        for text in ("a.bad.example", "10.0.0.1", "[::1]"):
            self.assertIn(self.check_destination(text).error, (Kind.DESTINATION_DENIED, Kind.ADDRESS_DENIED), text)

    def test_refused(self) -> None:
        """Each refusal is the one that the client would be shown."""
        for url, kind, word in (
            ("https://127.1/", Kind.INVALID_TARGET, "127.1"),
            ("/health", Kind.INVALID_TARGET, "host"),
            ("", Kind.INVALID_TARGET, "host"),
            ("good.example:", Kind.INVALID_TARGET, "port"),
            ("no such name", Kind.INVALID_TARGET, "not a DNS name"),
            ("http://good.example/", Kind.PLAINTEXT_DESTINATION, "tls.allow_plaintext"),
            ("https://a.bad.example/", Kind.DESTINATION_DENIED, "**.bad.example:*"),
            ("https://good.example:22/", Kind.DESTINATION_NOT_ALLOWED, "egress.allow"),
            ("https://nowhere.example/", Kind.DNS_ERROR, "no such name"),
            ("https://inner.example/", Kind.ADDRESS_DENIED, "10.0.0.1"),
            ("https://169.254.169.254/", Kind.ADDRESS_DENIED, "metadata"),
        ):
            found = self.check_destination(url)
            self.assertIs(found.error, kind, url)
            self.assertIn(word, found.reason)
            self.assertIn(f"refused: {kind.status} {kind.public_name}: ", found.line)

    def test_international_host(self) -> None:
        """A host may be asked about as people write it: it is judged as a client would send it, in A-labels."""
        for url in ("https://bücher.example/x", "bücher.example:443", "wss://BÜCHER.example?q"):
            self.assertEqual(self.check_destination(url).addresses, ("9.9.9.9",), url)
        for url in (
            "https://１２７.0.0.1/",
            "https://good.example/é",
            "https://bü_.example:443x/",
            "/https://bücher.example/",
        ):
            self.assertIs(self.check_destination(url).error, Kind.INVALID_TARGET, url)

    def test_plaintext_when_allowed(self) -> None:
        """http destinations pass where the configuration lets them."""
        settings = Settings(egress=self.settings.egress, tls=Tls(allow_plaintext=True))
        self.assertIs(self.check_destination("http://good.example/", settings).error, None)

    def test_without_lookup(self) -> None:
        """Without a lookup names pass and address literals are judged all the same."""
        guard = AddressGuard([], frozenset)
        self.assertIs(check_destination("https://inner.example/", self.settings, guard, None).error, None)
        self.assertIs(check_destination("https://10.0.0.1/", self.settings, guard, None).error, Kind.ADDRESS_DENIED)

    def test_to_dict(self) -> None:
        """The same for machines."""
        found = replace(self.check_destination("https://10.0.0.1/"), reason="because")
        expected = {"url": "https://10.0.0.1/", "allowed": False, "error": "address_denied", "reason": "because"}
        self.assertEqual(found.to_dict(), {**expected, "addresses": []})
