"""Tests of `nitroproxy.enclave.gates`, with stand-ins for the machine."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cbor2
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.enclave.gates import GateFailed, Machine, Passed, pass_gates
from nitroproxy.enclave.nsm_device import NsmDevice
from tests.attestation.fake_nsm import MODULE_ID, FakeNsm
from tests.attestation.pki import T0

#: When documents are signed.
SIGNED = T0.timestamp() + 60


class GateTests(SynchronousTestCase):
    """One gate at a time fails."""

    def setUp(self) -> None:
        self.nsm = FakeNsm()
        self.patch(fcntl, "ioctl", self.nsm.ioctl)
        self.device = NsmDevice(os.devnull)
        self.addCleanup(self.device.close)
        self.clocks = Path(self.mktemp())
        self.clocks.mkdir()
        self.pool = Path(self.mktemp())
        self.pool.touch()
        self.told: list[str] = []
        self.machine = Machine(
            self.clocks, "/dev/ptp-test", str(self.pool), "x86_64", lambda: SIGNED, self.read("/dev/ptp-test", SIGNED)
        )
        self.sources("kvm-clock", "kvm-clock tsc acpi_pm")

    def read(self, expected: str, answer: float | OSError) -> Callable[[str], int]:
        def read(path: str) -> int:
            self.assertEqual(path, expected)
            if isinstance(answer, OSError):
                raise answer
            return round(answer * 1e9)

        return read

    def sources(self, current: str, available: str) -> None:
        (self.clocks / "current_clocksource").write_text(f"{current}\n")
        (self.clocks / "available_clocksource").write_text(f"{available}\n")

    def passes(self, *, emulated: bool = False) -> Passed:
        return pass_gates(self.device, emulated=emulated, machine=self.machine)

    def failure(self, *, emulated: bool = False) -> str:
        error = self.assertRaises(GateFailed, self.passes, emulated=emulated)
        return str(error).removeprefix("attestation: the gate ")

    def test_passes(self) -> None:
        """A Nitro enclave passes on either architecture; the kernel's pool has the NSM's bytes."""
        self.assertEqual(self.passes(), Passed(MODULE_ID, debug=False))
        self.assertEqual(len(self.pool.read_bytes()), 512)
        self.nsm.debug = True
        self.sources("arch_sys_counter", "arch_sys_counter")
        self.machine = replace(self.machine, architecture="aarch64")
        self.assertEqual(self.passes(), Passed(MODULE_ID, debug=True))

    def test_nsm(self) -> None:
        """No NSM that answers, at any of the calls."""
        self.nsm.instead = OSError(errno.EIO, "Input/output error")
        self.assertEqual(self.failure(), "'nsm' has failed: the NSM failed at DescribeNSM: Input/output error")
        self.nsm.instead = cbor2.dumps({"Error": "InternalError"})
        self.assertIn("'nsm' has failed: the NSM refused DescribeNSM", self.failure())

    def test_random(self) -> None:
        """Two equal answers to GetRandom, and zeros."""
        for octets in (b"r" * 256, bytes(256)):
            self.patch(self.device, "random", lambda octets=octets: octets)
            self.assertIn("'random' has failed: the NSM has given the same bytes twice, or zeros", self.failure())

    def test_pool(self) -> None:
        """A pool that does not take the bytes, and a kernel whose own source is not seeded."""
        self.machine = replace(self.machine, entropy="/no/such/pool")
        self.assertIn("'random' has failed: /no/such/pool does not take the NSM's bytes: No such", self.failure())
        self.machine = replace(self.machine, entropy=str(self.pool))

        def blocks(size: int, flags: int) -> bytes:
            self.assertEqual(flags, os.GRND_NONBLOCK)
            raise BlockingIOError(errno.EAGAIN, "would block")

        self.patch(os, "getrandom", blocks)
        self.assertIn("'random' has failed: the kernel's random numbers are not seeded", self.failure())

    def test_clock_source(self) -> None:
        """Another clock source than the hypervisor's, an unknown architecture, and no sysfs."""
        self.sources("tsc", "kvm-clock tsc")
        self.assertIn("'clocksource' has failed: the kernel keeps time by 'tsc', not by the hyperv", self.failure())
        self.machine = replace(self.machine, architecture="riscv64")
        self.assertIn("'clocksource' has failed: there are no Nitro enclaves on riscv64", self.failure())
        (self.clocks / "current_clocksource").unlink()
        self.assertIn("current_clocksource cannot be read: No such file", self.failure())

    def test_ptp(self) -> None:
        """The time within a second of the hypervisor's clock passes; further off, and without that clock, it fails."""
        for off, passes in ((0.9, True), (-0.9, True), (1.1, False), (-1.1, False)):
            self.machine = replace(self.machine, read_ptp=self.read("/dev/ptp-test", SIGNED + off))
            if passes:
                self.passes()
            else:
                self.assertIn(
                    f"'clock' has failed: the system's time differs from /dev/ptp-test's by {-off:+.1f} s",
                    self.failure(),
                )
        missing = FileNotFoundError(errno.ENOENT, "No such file or directory")
        self.machine = replace(self.machine, read_ptp=self.read("/dev/ptp-test", missing))
        self.assertIn("'clock' has failed: there is no /dev/ptp-test: the kernel needs ptp_kvm", self.failure())
        denied = PermissionError(errno.EACCES, "Permission denied")
        self.machine = replace(self.machine, read_ptp=self.read("/dev/ptp-test", denied))
        self.assertIn("'clock' has failed: /dev/ptp-test cannot be read: Permission denied", self.failure())

    def test_without_ptp(self) -> None:
        """On aarch64 AWS's kernels have no such clock: a document alone tells the time."""
        missing = FileNotFoundError(errno.ENOENT, "No such file or directory")
        self.sources("arch_sys_counter", "arch_sys_counter")
        self.machine = replace(
            self.machine, architecture="aarch64", read_ptp=self.read("/dev/ptp-test", missing), now=lambda: SIGNED + 4.9
        )
        self.passes()
        self.machine = replace(self.machine, now=lambda: SIGNED + 10)
        self.assertIn("'clock' has failed: the system's time differs from an attestation document's by", self.failure())

    def test_document(self) -> None:
        """The time within five seconds of a document's passes, also in an emulated enclave; one off by ten fails."""
        self.sources("tsc", "tsc hpet")
        for off, passes in ((4.9, True), (-4.9, True), (10, False), (-10, False)):
            self.machine = replace(self.machine, now=partial(float, SIGNED + off))
            if passes:
                self.passes(emulated=True)
            else:
                self.assertIn(
                    f"'clock' has failed: the system's time differs from an attestation document's by {off:+.1f} s",
                    self.failure(emulated=True),
                )

    def test_unreadable_document(self) -> None:
        """A document that cannot be read."""
        self.patch(self.device, "attestation", lambda: b"\xff")
        self.assertIn("'nsm' has failed: the NSM's document cannot be read", self.failure())

    def test_emulated(self) -> None:
        """In an emulated enclave no hypervisor's clock is needed; where there is one, it is no emulated enclave."""
        self.assertIn(
            "'clocksource' has failed: attestation.emulated is true, but this machine", self.failure(emulated=True)
        )
        self.sources("tsc", "tsc kvm-clock")
        self.assertIn("attestation.emulated is true", self.failure(emulated=True))
        self.sources("tsc", "tsc")
        self.machine = replace(self.machine, read_ptp=self.read("", AssertionError()))  # type: ignore[arg-type]
        self.passes(emulated=True)
