"""The configuration turned into endpoints."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
_PLACE = """
from twisted.internet import reactor
from nitroproxy.config import Settings
from nitroproxy.wiring import gateway_server
print(gateway_server(reactor, Settings())[1])
"""


class GatewayServerTests(SynchronousTestCase):
    """Where the gateway listens."""

    def place(self, environment: str) -> str:
        """What a process says that has the third descriptor and *environment*, assignments for a shell."""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            self.port = listening.getsockname()[1]
            script = f'exec 3<&{listening.fileno()}; export {environment}; exec "$0" -c "$1"'
            command = ["bash", "-c", script, sys.executable, _PLACE]
            done = subprocess.run(
                command, cwd=ROOT, pass_fds=[listening.fileno()], capture_output=True, text=True, check=True
            )
        return done.stdout.strip()

    def test_activated(self) -> None:
        """A socket of that name from systemd is taken, although Twisted has read and removed what says so by then."""
        place = self.place("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=gateway")
        self.assertEqual(place, f"systemd's socket 127.0.0.1:{self.port}")

    def test_not_ours(self) -> None:
        """A socket of another name, or for another process, is left alone."""
        for environment in (
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=other",
            "LISTEN_PID=1 LISTEN_FDS=1 LISTEN_FDNAMES=gateway",
            "NOTHING=1",
        ):
            self.assertEqual(self.place(environment), "127.0.0.1:8080")
