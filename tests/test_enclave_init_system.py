"""What init asks of the kernel and the image."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.enclave.init_children import Account
from nitroproxy.enclave.init_system import CannotStart, account, bring_loopback_up, find_program


class LoopbackTests(SynchronousTestCase):
    """`bring_loopback_up`, with the kernel's part played: this machine's loopback stays as it is."""

    def setUp(self) -> None:
        self.flags = 0x48
        self.allowed = True
        self.patch(fcntl, "ioctl", self._ioctl)

    def _ioctl(self, descriptor: object, request: int, argument: bytes) -> bytes:
        name, flags = struct.unpack("16sh14x", argument)
        self.assertEqual(name, b"lo".ljust(16, b"\0"))
        if request == 0x8914:
            if not self.allowed:
                raise PermissionError(errno.EPERM, "Operation not permitted")
            self.flags = flags
        return struct.pack("16sh14x", name, self.flags)

    def test_down(self) -> None:
        """A loopback that is down is brought up, and keeps its other flags."""
        self.assertTrue(bring_loopback_up())
        self.assertEqual(self.flags, 0x49)

    def test_up(self) -> None:
        """A loopback that is up is left alone, also where it could not be changed."""
        self.flags, self.allowed = 0x49, False
        self.assertFalse(bring_loopback_up())

    def test_not_allowed(self) -> None:
        """One that is down and may not be brought up is said in a sentence, with what to do."""
        self.allowed = False
        self.assertIn("run as root", str(self.assertRaises(CannotStart, bring_loopback_up)))


class AccountTests(SynchronousTestCase):
    """`account`."""

    def test_numbers(self) -> None:
        """Numbers need no /etc/passwd; without a group it is the user's number."""
        self.assertEqual(account("65533"), Account(65533, 65533))
        self.assertEqual(account("7:8"), Account(7, 8))

    def test_names(self) -> None:
        """Names are looked up, and a named user has its own group."""
        self.assertEqual(account("root"), Account(0, 0))
        self.assertEqual(account("root:5"), Account(0, 5))
        self.assertEqual(account("5:root"), Account(5, 0))

    def test_unknown(self) -> None:
        """Unknown names and impossible numbers are said with what to do."""
        for text in ("nouser", "", "nouser:5", "5:nogroup-here", "4294967295", "5:4294967295", "a\0b"):
            self.assertRaises(CannotStart, account, text)


class ProgramTests(SynchronousTestCase):
    """`find_program`."""

    def test_found(self) -> None:
        """A program is found by PATH, and by its path."""
        self.assertTrue(find_program("sh", {"PATH": "/usr/bin:/bin"}).endswith("/sh"))
        self.assertEqual(find_program("/bin/sh", {}), "/bin/sh")

    def test_missing(self) -> None:
        """One that is nowhere, or may not be executed, is said with where it was looked for."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "x").write_text("")
        os.chmod(directory / "x", 0o600)
        error = str(self.assertRaises(CannotStart, find_program, "x", {"PATH": str(directory)}))
        self.assertIn(f"no program x in {directory}", error)
        self.assertRaises(CannotStart, find_program, str(directory / "y"), {})
