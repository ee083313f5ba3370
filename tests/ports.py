"""Ports for daemons that a test starts."""

from __future__ import annotations

import contextlib
import random
import socket


def free_port() -> int:
    """A TCP port on loopback without a listener, outside the range of outgoing connections, one of which could take it
    before the daemon that is to listen there does."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            port = random.SystemRandom().randrange(10_000, 32_000)
            probe.bind(("127.0.0.1", port))
            return port
