"""Accepting without descriptors: the spare ones by themselves, and in daemons that have run out (K2)."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.sockets.spare import COUNT, MOMENT, SpareDescriptors, SparingSocket

TWISTD = Path(sys.executable).with_name("twistd")
#: Seconds after which a daemon that does not answer has failed.
PATIENCE = 60
#: The daemons' limit of descriptors, and a crowd of clients that exceeds it.
LIMIT = 150
CROWD = 220


class FakeSocket:
    """A listening socket that accepts while there are descriptors.

    :ivar free: how many.
    """

    def __init__(self) -> None:
        self.free = 0
        self.closed = False
        self.error = errno.EMFILE

    def accept(self) -> tuple[str, str]:
        """Accept, if a descriptor is free."""
        if self.free <= 0:
            raise OSError(self.error, os.strerror(self.error))
        self.free -= 1
        return "a socket", "an address"

    def fileno(self) -> int:
        """The descriptor."""
        return 42

    def close(self) -> None:
        """Close."""
        self.closed = True


class FakeSpare(SpareDescriptors):
    """Spare descriptors, as a number."""

    def __init__(self, listening: FakeSocket) -> None:
        super().__init__()
        self._listening = listening
        self.held = 2

    def fill(self) -> bool:
        """Take back."""
        while self.held < 2 and self._listening.free:
            self._listening.free -= 1
            self.held += 1
        return self.held == 2

    def release(self) -> bool:
        """Give one out."""
        if not self.held:
            return False
        self.held -= 1
        self._listening.free += 1
        return True


class FakePort:
    """A port."""

    def __init__(self, listening: Any, clock: Clock) -> None:
        self.socket = listening
        self.reactor = clock
        self.connected = True
        self.reading = True

    def stopReading(self) -> None:
        """Leave the queue alone."""
        self.reading = False

    def startReading(self) -> None:
        """Look at it."""
        self.reading = True


class SparingTests(SynchronousTestCase):
    """A listening socket with two spare descriptors, and a process that has no others."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.listening = FakeSocket()
        self.port: Any = FakePort(self.listening, self.clock)
        self.spare = FakeSpare(self.listening)
        self.made_way = 0
        SparingSocket(self.port, self.spare, self.make_way)

    def make_way(self) -> None:
        self.made_way += 1
        self.listening.free += 1

    def test_enough(self) -> None:
        """While there are descriptors the spare ones are not used."""
        self.listening.free = 5
        for _ in range(5):
            self.assertEqual(self.port.socket.accept(), ("a socket", "an address"))
        self.assertEqual(self.spare.held, 2)

    def test_spare(self) -> None:
        """Without any, a connection is accepted on each spare one; then the queue is left alone for a moment, and the
        listener is asked to close one."""
        for _ in range(2):
            self.port.socket.accept()
        self.assertRaises(BlockingIOError, self.port.socket.accept)
        self.assertEqual((self.port.reading, self.port.leaves, self.made_way), (False, True, 0))
        self.clock.advance(MOMENT)
        self.assertEqual((self.port.reading, self.port.leaves, self.made_way), (True, False, 1))
        self.port.socket.accept()

    def test_memory(self) -> None:
        """Without memory spare descriptors do not help: the queue is left alone for a moment."""
        self.listening.error = errno.ENOMEM
        self.assertRaises(BlockingIOError, self.port.socket.accept)
        self.assertEqual((self.spare.held, self.port.reading), (2, False))

    def test_stopped(self) -> None:
        """A port that has stopped listening is not started again."""
        self.spare.held = 0
        self.assertRaises(BlockingIOError, self.port.socket.accept)
        self.port.connected = False
        self.clock.advance(MOMENT)
        self.assertFalse(self.port.reading)

    def test_other_errors(self) -> None:
        """Other errors are left to the port; calls other than accept() are the socket's."""
        self.listening.error = errno.EPERM
        self.assertRaises(PermissionError, self.port.socket.accept)
        self.assertEqual(self.port.socket.fileno(), 42)
        self.port.socket.close()
        self.assertTrue(self.listening.closed)
        self.assertEqual(self.spare.held, 0)


class DescriptorTests(SynchronousTestCase):
    """Real descriptors."""

    def test_descriptors(self) -> None:
        """As many descriptors are open as are kept back: none before they are requested, and none after they are
        closed."""
        before = len(os.listdir("/proc/self/fd"))
        spare = SpareDescriptors()
        self.addCleanup(spare.close)
        self.assertTrue(spare.fill(), "none is wanted yet")
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        spare.keep()
        self.assertTrue(spare.fill())
        self.assertEqual(len(os.listdir("/proc/self/fd")) - before, COUNT)
        self.assertTrue(spare.release())
        self.assertEqual(len(os.listdir("/proc/self/fd")) - before, COUNT - 1)
        spare.close()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertFalse(spare.release())


class ExhaustedTests(SynchronousTestCase):
    """Daemons with few descriptors, and a crowd of clients that takes them all."""

    def setUp(self) -> None:
        # A short name: the path of a UNIX socket has 107 bytes at most.
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]

    def start(self, role: str, **more: str) -> None:
        """Start a daemon, and wait until it serves."""
        environ = {
            "PATH": os.environ["PATH"],
            "NITROPROXY_TRANSPORT_KIND": "unix",
            "NITROPROXY_TRANSPORT_DIRECTORY": str(self.directory),
            "HOST_PROXY_PORT": str(self.port),
            "NITROPROXY_ENCLAVE_PROXY_PORT": str(self.port),
            **more,
        }
        command = ["sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh", str(TWISTD), "-n", "--pidfile="]
        command += ["--reactor=nitroproxy", f"nitroproxy-{role}"]
        with (self.directory / "log").open("wb") as log:
            daemon = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environ,
            )
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.kill)
        began = time.monotonic()
        while not self.get(self.tcp, b"/metrics").startswith(b"HTTP/1.1 200"):
            self.assertIsNone(daemon.poll(), (self.directory / "log").read_text())
            self.assertLess(time.monotonic() - began, PATIENCE)

    def tcp(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def unix(self, name: str) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(str(self.directory / name))
        return connection

    def get(self, connect: Any, target: bytes) -> bytes:
        """The whole answer; empty when there is none."""
        data = b""
        with contextlib.suppress(ConnectionError), connect() as connection:
            connection.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % target)
            while piece := connection.recv(65536):
                data += piece
        return data

    def crowd(self, connect: Any) -> None:
        """Connect, send nothing, and stay connected."""
        for _ in range(CROWD):
            connection = connect()
            self.addCleanup(connection.close)

    def check(self, connect: Any, page: bytes, status: bytes) -> None:
        """A page of our own is served, and any other request gets 503."""
        self.assertEqual(self.get(connect, page)[:12], b"HTTP/1.1 " + status)
        self.assertEqual(self.get(connect, b"https://a.example/")[:12], b"HTTP/1.1 503")

    def test_gateway(self) -> None:
        """A crowd at the gateway does not block health there, or at the enclave's listeners."""
        self.start("host")
        self.crowd(self.tcp)
        self.check(self.tcp, b"/health/live", b"200")
        self.assertEqual(self.get(lambda: self.unix("host/5001.sock"), b"/health")[:12], b"HTTP/1.1 200")
        self.assertEqual(self.get(lambda: self.unix("host/5002.sock"), b"/health")[:12], b"HTTP/1.1 404")
        # A line each time that it begins, which a crowd may bring about again; not one for each connection.
        self.assertIn((self.directory / "log").read_text().count("Too many open files"), range(1, 6))

    def test_relay(self) -> None:
        """A crowd at the relay does not block health there, or at the gateway."""
        self.start("host")
        self.crowd(lambda: self.unix("host/5001.sock"))
        self.assertEqual(self.get(lambda: self.unix("host/5001.sock"), b"/health")[:12], b"HTTP/1.1 200")
        self.check(self.tcp, b"/health/live", b"200")

    def test_enclave(self) -> None:
        """A crowd of applications in the enclave does not block metrics there, or for the host."""
        self.start("enclave")
        self.crowd(self.tcp)
        self.check_enclave()

    def test_enclave_from_the_host(self) -> None:
        """A crowd from the host does not block metrics there, or for applications in the enclave."""
        self.start("enclave")
        self.crowd(lambda: self.unix("enclave/5000.sock"))
        self.check_enclave()

    def check_enclave(self) -> None:
        self.check(self.tcp, b"/metrics", b"200")
        self.check(lambda: self.unix("enclave/5000.sock"), b"/metrics", b"200")

    def test_workers(self) -> None:
        """The same holds with several processes."""
        self.start("host", NITROPROXY_HOST_PROXY_PROCESSES="2")
        self.crowd(self.tcp)
        self.crowd(self.tcp)
        self.check(self.tcp, b"/health/live", b"200")
