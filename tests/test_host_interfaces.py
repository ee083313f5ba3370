"""The machine's own addresses."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.host.interfaces import own_addresses

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

    def test_no_table(self) -> None:
        """Without the table of IPv4 nobody can say which addresses are this machine's: that is an error, not none."""
        self.assertRaises(FileNotFoundError, own_addresses, Path(self.mktemp()))
