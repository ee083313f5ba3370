"""Tests of `nitroproxy.config.kinds`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.kinds import address_and_port, destination, proxy_address


class PlaceTests(SynchronousTestCase):
    """Texts that name a place."""

    def test_address_and_port(self) -> None:
        """An address in its normal form, and a port; IPv6 in brackets only."""
        self.assertEqual(address_and_port("0.0.0.0:443"), ("0.0.0.0", 443))
        self.assertEqual(address_and_port("[2001:DB8:0::1]:1"), ("2001:db8::1", 1))
        for text in (
            "",
            "443",
            "localhost:1",
            "::1:1",
            "[127.0.0.1]:1",
            "127.0.0.1:0",
            "127.0.0.1:65536",
            "1.1.1.1:+1",
        ):
            self.assertRaises(ValueError, address_and_port, text)

    def test_destination(self) -> None:
        """A host as targets have it, and a port."""
        self.assertEqual(destination("DB.example.:5432"), ("db.example", 5432))
        self.assertEqual(destination("b\u00fccher.example:1"), ("xn--bcher-kva.example", 1))
        for text in ("db.example", ":1", "db.example:0", "127.1:1", "a b:1", "db.example:99999999999999999999"):
            self.assertRaises(ValueError, destination, text)

    def test_proxy_address(self) -> None:
        """A URL of plain HTTP, with a port and without credentials."""
        self.assertEqual(proxy_address("http://proxy.example:3128/"), ("proxy.example", 3128))
        for text in ("proxy.example:3128", "http://proxy.example", "https://a:1", "http://u:p@a:1", "socks5://a:1"):
            self.assertRaises(ValueError, proxy_address, text)
