"""The addresses that stand for names: `nitroproxy.transparent.ranges`."""

from __future__ import annotations

from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.transparent.ranges import (
    MOST_NAMES,
    OWN_V4,
    OWN_V6,
    PROBE_V4,
    PROBE_V6,
    RANGE_V4,
    RANGE_V6,
    is_ours,
    number_of,
    packed_v4,
    packed_v6,
)


class RangeTests(SynchronousTestCase):
    """Numbers and addresses."""

    def test_there_and_back(self) -> None:
        """Every number has one address of each family, in our ranges, and comes back from it."""
        for number in (0, 1, 255, 256, MOST_NAMES - 1):
            for packed, network in ((packed_v4(number), RANGE_V4), (packed_v6(number), RANGE_V6)):
                self.assertIn(ip_address(packed), network)
                self.assertEqual((number_of(packed), is_ours(packed)), (number, True))
        self.assertEqual(str(ip_address(packed_v4(258))), "198.19.1.2")

    def test_others(self) -> None:
        """Our own addresses stand for no name; no other address is ours or stands for one."""
        for address in (OWN_V4, OWN_V6, PROBE_V4, PROBE_V6):
            self.assertEqual((number_of(address.packed), is_ours(address.packed)), (None, True))
        for text in ("198.17.255.255", "198.20.0.0", "127.0.0.1", "fd00:6e69:7472:6f:0:1::1", "fd00::c613:1", "::"):
            packed = ip_address(text).packed
            self.assertEqual((number_of(packed), is_ours(packed)), (None, False), text)
        self.assertIsNone(number_of(ip_address("fd00:6e69:7472:6f::c614:0").packed))
