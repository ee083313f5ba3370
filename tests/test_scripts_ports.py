"""scripts/ports.py, with listeners of the test's own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

PORTS = Path(__file__).parent.parent / "scripts" / "ports.py"


class PortsTests(SynchronousTestCase):
    """Its three commands."""

    def ports(self, *words: str) -> tuple[int, str]:
        """The exit status and the output."""
        done = subprocess.run([sys.executable, str(PORTS), *words], check=False, capture_output=True, text=True)
        return done.returncode, done.stdout or done.stderr

    def test_free(self) -> None:
        """A free port can be listened on."""
        status, port = self.ports("free")
        self.assertEqual(status, 0)
        socket.create_server(("127.0.0.1", int(port))).close()

    def test_taken(self) -> None:
        """A port that loopback, any address or any IPv6 address is listened on is taken, by this process."""
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, ""), (socket.AF_INET6, "::")):
            with socket.create_server((address, 0), family=family, dualstack_ipv6=family == socket.AF_INET6) as taken:
                port = str(taken.getsockname()[1])
                self.assertEqual(self.ports("owner", port), (0, f"{os.getpid()}\n"))
                status, words = self.ports("check", port)
                self.assertEqual(status, 1)
                self.assertIn(f"it is taken by pid {os.getpid()} (", words)
                self.assertIn(f") in {os.getcwd()}", words)
            self.assertEqual(self.ports("owner", port), (0, ""))
            self.assertEqual(self.ports("check", port), (0, ""))

    def test_not_a_port(self) -> None:
        """What is no port is named, with status 2."""
        for word in ("0", "65536", "x", "", "-1"):
            status, words = self.ports("check", word)
            self.assertEqual(status, 2)
            self.assertIn(f"from 1 to 65535, got {word!r}", words)
