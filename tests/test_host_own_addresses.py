"""The machine's own addresses."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.host.own_addresses import OwnAddresses, own_addresses

FIB_TRIE = """Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.0.0.0
        /24 link UNICAST
     |-- 10.0.0.7
        /32 host LOCAL
     |-- 10.0.0.255
        /32 link BROADCAST
"""
IF_INET6 = (
    "00000000000000000000000000000001 01 80 10 80       lo\n26064700000000000000000000000001 02 40 00 80     eth0\n"
)


class InterfaceTests(SynchronousTestCase):
    """The kernel's tables."""

    def test_tables(self) -> None:
        """Addresses of both families, and no network or broadcast addresses."""
        proc = Path(self.mktemp())
        proc.mkdir()
        (proc / "fib_trie").write_text(FIB_TRIE)
        self.assertEqual(own_addresses(proc), {"10.0.0.7"})
        (proc / "if_inet6").write_text(IF_INET6)
        self.assertEqual(own_addresses(proc), {"10.0.0.7", "::1", "2606:4700::1"})

    def test_this_machine(self) -> None:
        """This machine has at least its loopback address."""
        self.assertIn("127.0.0.1", own_addresses())

    def test_known_for_a_second(self) -> None:
        """They are read at most once a second, and a new address is known a second later."""
        clock, answers = Clock(), [frozenset({"10.0.0.7"}), frozenset({"10.0.0.7", "52.1.2.3"})]
        own = OwnAddresses(clock.seconds, lambda: answers.pop(0))
        for _ in range(3):
            self.assertEqual(own(), {"10.0.0.7"})
            clock.advance(0.3)
        clock.advance(0.2)
        self.assertEqual(own(), {"10.0.0.7", "52.1.2.3"})

    def test_unreadable_later(self) -> None:
        """If they can no longer be read, that is an error; the old ones are not used."""
        clock = Clock()
        proc = Path(self.mktemp())
        proc.mkdir()
        (proc / "fib_trie").write_text(FIB_TRIE)
        own = OwnAddresses(clock.seconds, lambda: own_addresses(proc))
        own()
        (proc / "fib_trie").unlink()
        clock.advance(1)
        self.assertRaises(FileNotFoundError, own)

    def test_no_table(self) -> None:
        """Without the IPv4 table this machine's addresses are unknown: that is an error, not an empty set."""
        self.assertRaises(FileNotFoundError, own_addresses, Path(self.mktemp()))
