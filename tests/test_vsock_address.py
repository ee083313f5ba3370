"""Addresses of vsock sockets."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.vsock.address import CID_ANY, VsockAddress, check_cid, check_port


class AddressTests(SynchronousTestCase):
    """The value of an address, and its text."""

    def test_text(self) -> None:
        """An address is written like the string that names it."""
        self.assertEqual((str(VsockAddress(16, 5000)), str(VsockAddress(CID_ANY, 1))), ("vsock:16:5000", "vsock:any:1"))

    def test_out_of_range(self) -> None:
        """Numbers that Python would cut to 32 bits are refused."""
        for number in (-1, 1 << 32):
            self.assertRaises(ValueError, check_cid, number)
            self.assertRaises(ValueError, check_port, number)
        self.assertEqual((check_cid(16), check_port(5000)), (16, 5000))
