"""Tests of `nitroproxy.enclave.ptp`."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.enclave.ptp import read_ptp


class ReadTests(SynchronousTestCase):
    """Reading a clock; this machine has none."""

    def test_no_clock(self) -> None:
        """A path that is no clock is an error of the system's."""
        self.assertRaises(FileNotFoundError, read_ptp, "/no/such/clock")
        self.assertRaises(OSError, read_ptp, os.devnull)
