"""Listening sockets that let nothing more in, with real sockets. vsock: see the VM stages."""

from __future__ import annotations

import errno
import select
import socket
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from nitroproxy.sockets.sealing import MOMENT, admit_no_more, seal


class FakeVsock:
    """As much of a vsock socket as is needed."""

    family = 40

    def __init__(self) -> None:
        self.backlogs: list[int] = []

    def listen(self, backlog: int) -> None:
        """Listen."""
        self.backlogs.append(backlog)


class SealingTests(SynchronousTestCase):
    """`admit_no_more` and `seal`."""

    def listen(self, family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> socket.socket:
        listening = socket.socket(family)
        self.addCleanup(listening.close)
        listening.bind(address)
        listening.listen(8)
        listening.setblocking(False)
        return listening

    def begin(self, listening: socket.socket) -> tuple[socket.socket, int]:
        """A client that begins to connect, and the errno of that."""
        client = socket.socket(listening.family)
        self.addCleanup(client.close)
        client.setblocking(False)
        return client, client.connect_ex(listening.getsockname())

    def connect(self, listening: socket.socket) -> socket.socket:
        """A client that has connected."""
        client, error = self.begin(listening)
        self.assertIn(error, (0, errno.EINPROGRESS))
        self.assertEqual(select.select([], [client], [], 30)[1], [client])
        return client

    def check_tcp(self, listening: socket.socket) -> None:
        waiting = self.connect(listening)
        self.assertEqual(admit_no_more(listening), MOMENT)
        late, error = self.begin(listening)
        self.assertEqual(error, errno.EINPROGRESS)
        seal(listening)
        later, error = self.begin(listening)
        self.assertEqual(error, errno.EINPROGRESS)
        accepted, _ = listening.accept()
        self.addCleanup(accepted.close)
        self.assertRaises(BlockingIOError, listening.accept)
        self.assertEqual(select.select([], [late, later], [], 0)[1], [], "neither has connected, nor been reset")
        listening.close()
        waiting.sendall(b"hello")
        self.assertEqual(select.select([accepted], [], [], 30)[0], [accepted])
        self.assertEqual(accepted.recv(5), b"hello")
        self.assertEqual(select.select([], [late], [], 30)[1], [late], "its next attempt")
        self.assertEqual(late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), errno.ECONNREFUSED)

    def test_tcp(self) -> None:
        """Who has connected is served; who begins after that is refused when it tries again."""
        self.check_tcp(self.listen())

    def test_sealed(self) -> None:
        """What is sealed lets in nobody, be it at the end of a handshake: every segment is dropped."""
        listening = self.listen()
        seal(listening)
        self.begin(listening)
        self.assertRaises(BlockingIOError, listening.accept)

    def test_tcp6(self) -> None:
        """The same with IPv6."""
        if not Path("/proc/net/if_inet6").exists():
            raise SkipTest("there is no IPv6 here")
        self.check_tcp(self.listen(socket.AF_INET6, ("::1", 0)))

    def test_established(self) -> None:
        """What connects while handshakes end inherits the filter; it reads and writes on."""
        listening = self.listen()
        client = self.connect(listening)
        accepted, _ = listening.accept()
        self.addCleanup(accepted.close)
        admit_no_more(accepted)
        client.sendall(b"hello")
        self.assertEqual(select.select([accepted], [], [], 30)[0], [accepted])
        accepted.sendall(accepted.recv(5))
        client.close()
        self.assertEqual(select.select([accepted], [], [], 30)[0], [accepted])

    def test_unix(self) -> None:
        """Who has connected is served; who comes after that is refused at once."""
        path = str(Path(self.mktemp()).absolute())[-100:]
        listening = self.listen(socket.AF_UNIX, path if len(path) < 100 else "\0" + path)
        waiting = self.connect(listening)
        self.assertEqual(admit_no_more(listening), 0)
        self.assertEqual(self.begin(listening)[1], errno.ECONNREFUSED)
        seal(listening)
        accepted, _ = listening.accept()
        self.addCleanup(accepted.close)
        self.assertRaises(BlockingIOError, listening.accept)
        waiting.sendall(b"hello")
        self.assertEqual(accepted.recv(5), b"hello")

    def test_vsock(self) -> None:
        """On vsock the queue is made as short as it can be."""
        listening = FakeVsock()
        self.assertEqual(admit_no_more(listening), 0)
        seal(listening)
        self.assertEqual(listening.backlogs, [0])

    def test_no_socket(self) -> None:
        """Where the kernel does not do it, that is no error."""
        listening = socket.socket()
        listening.close()
        self.assertEqual(admit_no_more(listening), 0)
        seal(listening)
