"""How places are shared: a listener's part, a client's part, and places that are returned (K2)."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.proxy.places import Places, Share, client_of
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.vsock.address import VsockAddress

LOOPBACK = IPv4Address("TCP", "127.0.0.1", 1)


def v4(last: int) -> IPv4Address:
    """A client on another machine."""
    return IPv4Address("TCP", f"192.0.2.{last}", 1)


class ShareTests(SynchronousTestCase):
    """Eight places."""

    def fill(self, share: Share, peer: IAddress, settings: ListenerSettings) -> int:
        """The number of further places that *peer* gets."""
        count = 0
        while share.take(object(), peer, settings) is None:
            count += 1
        return count

    def test_alone(self) -> None:
        """A listener that does not share has all its places, for a peer that stands for many clients."""
        share = Share(Places())
        settings = ListenerSettings(connections=8)
        self.assertEqual(self.fill(share, LOOPBACK, settings), 8)
        self.assertEqual(share.take(object(), LOOPBACK, settings), "all 8 connections of this listener are in use")

    def test_two_listeners(self) -> None:
        """One of two listeners that share may take all of its own places and leaves some to the other; together they
        never exceed the total."""
        settings = ListenerSettings(connections=8, together=10)
        places = Places()
        host, enclave = Share(places), Share(places)
        self.assertEqual(self.fill(host, LOOPBACK, settings), 8)
        self.assertEqual(self.fill(enclave, LOOPBACK, settings), 2)
        self.assertEqual(places.taken, 10)
        self.assertIn("all 10 connections of this proxy's listeners", str(enclave.take(object(), LOOPBACK, settings)))

    def test_two_clients(self) -> None:
        """One address leaves some places to the others; all addresses of an IPv6 network count as one."""
        settings = ListenerSettings(connections=8)
        share = Share(Places())
        self.assertEqual(self.fill(share, v4(1), settings), 6)
        self.assertIn("192.0.2.1", str(share.take(object(), v4(1), settings)))
        self.assertEqual(self.fill(share, v4(2), settings), 2)
        share = Share(Places())
        self.assertEqual(self.fill(share, IPv6Address("TCP", "2001:db8::1", 1), settings), 6)
        self.assertEqual(self.fill(share, IPv6Address("TCP", "2001:db8::2", 1), settings), 0)

    def test_one_place(self) -> None:
        """Of a single place a client may have all."""
        share = Share(Places())
        self.assertEqual(self.fill(share, v4(1), ListenerSettings(connections=1)), 1)

    def test_given_back(self) -> None:
        """A returned place is its listener's and its client's again; returned twice it counts once."""
        settings = ListenerSettings(connections=4)
        places = Places()
        share = Share(places)
        holders = [object() for _ in range(3)]
        for holder in holders:
            self.assertIsNone(share.take(holder, v4(1), settings))
        self.assertIsNotNone(share.take(object(), v4(1), settings))
        for holder in [*holders, *holders, object()]:
            share.give_back(holder)
        self.assertEqual(places.taken, 0)
        self.assertFalse(share.has(holders[0]))
        self.assertEqual(self.fill(share, v4(1), settings), 3)

    def test_reload(self) -> None:
        """With fewer places after a reload, no more are given out until as many are free."""
        share = Share(Places())
        holders = [object() for _ in range(4)]
        for holder in holders:
            share.take(holder, LOOPBACK, ListenerSettings(connections=4))
        fewer = ListenerSettings(connections=2)
        for holder in holders[:2]:
            share.give_back(holder)
            self.assertIsNotNone(share.take(object(), LOOPBACK, fewer))
        share.give_back(holders[2])
        self.assertIsNone(share.take(object(), LOOPBACK, fewer))


class ClientTests(SynchronousTestCase):
    """How clients are distinguished."""

    def test_addresses(self) -> None:
        """By IPv4 address or IPv6 network of 64 bits, and not at all where many clients share an address."""
        for address, client in (
            (v4(1), "192.0.2.1"),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 1), "192.0.2.1"),
            (IPv6Address("TCP", "2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
            (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::/64"),
            (LOOPBACK, None),
            (IPv4Address("TCP", "127.8.8.8", 1), None),
            (IPv6Address("TCP", "::1", 1), None),
            (IPv6Address("TCP", "::ffff:127.0.0.1", 1), None),
            (UNIXAddress(b"/a"), None),
            (VsockAddress(16, 5000), None),
        ):
            self.assertEqual(client_of(address), client, address)
