"""AF_VSOCK in the kernel: how it differs from TCP. Runs only in a guest with a vsock of its own, which sets
NITROPROXY_TEST_VSOCK (`scripts/dev.sh vm`): there cid 1 is the machine itself."""

from __future__ import annotations

import array
import contextlib  # not imported from it: trial treats a name "suppress" specially
import errno
import fcntl
import itertools
import os
import select
import socket
import termios
from collections.abc import Callable, Iterator
from typing import Any, Final

from twisted.internet import error, tcp
from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.vsock.address import CID_ANY
from nitroproxy.vsock.transport import LARGEST_SEND, vsock_socket
from tests.test_vsock_transport import REAL

if not REAL:
    skip = "needs a guest with a vsock of its own: scripts/dev.sh vm"

reactor: Any = global_reactor
LOCAL: Final = 1
HOST: Final = 2
#: Ports that no other test uses.
PORTS: Final = itertools.count(20000)
_BUFFER: Final = 256 << 10


class KernelTests(SynchronousTestCase):
    """The facts that `nitroproxy.vsock.transport` depends on: if one of these fails, review its overrides."""

    def listen(self, cid: int = CID_ANY, backlog: int = 16) -> tuple[socket.socket, int]:
        """A listening socket and its port."""
        port = next(PORTS)
        listening = self.make()
        listening.bind((cid, port))
        listening.listen(backlog)
        return listening, port

    def make(self) -> socket.socket:
        """A socket that is closed at the end."""
        made = vsock_socket()
        made.settimeout(5)
        self.addCleanup(made.close)
        return made

    def pair(self, cid: int = LOCAL) -> tuple[socket.socket, socket.socket]:
        """The two ends of a connection: the connecting one and the accepted one."""
        listening, port = self.listen()
        client = self.make()
        client.connect((cid, port))
        server, _ = listening.accept()
        server.settimeout(5)
        self.addCleanup(server.close)
        return client, server

    def assert_errno(self, number: int, call: Callable[..., object], *arguments: Any) -> None:
        """*call* fails with that errno."""
        failure = self.assertRaises(OSError, call, *arguments)
        self.assertEqual(errno.errorcode.get(failure.errno or 0), errno.errorcode[number])

    def test_names(self) -> None:
        """Addresses are (cid, port); the own cid of a connected socket reads as any."""
        listening, port = self.listen()
        client = self.make()
        client.connect((LOCAL, port))
        server, peer = listening.accept()
        self.addCleanup(server.close)
        self.assertEqual(listening.getsockname(), (CID_ANY, port))
        self.assertEqual(client.getsockname()[0], CID_ANY)
        self.assertEqual(client.getpeername(), (LOCAL, port))
        self.assertEqual(peer, (LOCAL, client.getsockname()[1]))
        self.assertEqual(server.getpeername(), peer)

    def test_host_cid_is_local(self) -> None:
        """Without another VM cid 2 is this machine too, and its peer is cid 1."""
        _, server = self.pair(HOST)
        self.assertEqual(server.getpeername()[0], LOCAL)

    def test_port_is_cut_down(self) -> None:
        """Python silently takes port 2^32 for 0: `check_port` must refuse it."""
        bound = self.make()
        bound.bind((CID_ANY, 1 << 32))
        self.assertEqual(bound.getsockname()[1], 0)

    def test_bytes_options(self) -> None:
        """setsockopt with bytes and getsockopt with a length fail; integers work."""
        client, _ = self.pair()
        self.assertRaises((TypeError, OSError), client.setsockopt, socket.SOL_SOCKET, socket.SO_LINGER, bytes(8))
        self.assertRaises((TypeError, OSError), client.getsockopt, socket.SOL_SOCKET, socket.SO_LINGER, 8)
        self.assertEqual(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)

    def test_options_that_are_not_there(self) -> None:
        """TCP_NODELAY, SO_REUSEPORT, FIONREAD, SIOCOUTQ and datagrams do not exist."""
        client, _ = self.pair()
        self.assert_errno(errno.ENOPROTOOPT, client.setsockopt, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.assert_errno(errno.EOPNOTSUPP, client.setsockopt, socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for request in (termios.FIONREAD, termios.TIOCOUTQ):
            self.assertRaises(OSError, fcntl.ioctl, client, request, array.array("i", [0]))
        self.assert_errno(errno.ENODEV, socket.socket, socket.AF_VSOCK, socket.SOCK_DGRAM)

    def test_writes_after_the_peers_close(self) -> None:
        """Empty or not, the first send after the peer's close is EPIPE; the peer's last bytes can still be read."""
        for data in (b"", b"x"):
            client, server = self.pair()
            server.sendall(b"last words")
            server.close()
            self.assertEqual(client.recv(4), b"last")
            self.assert_errno(errno.EPIPE, client.send, data)
            self.assertEqual(client.recv(100), b" words")
            self.assertEqual(client.recv(100), b"")

    def test_half_close(self) -> None:
        """One direction can end while the other continues."""
        client, server = self.pair()
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(server.recv(100), b"question")
        self.assertEqual(server.recv(100), b"")
        server.sendall(b"answer")
        self.assertEqual(client.recv(100), b"answer")

    def test_reset_reads_as_the_end(self) -> None:
        """A peer that drops unread data ends the connection without an error: an end proves nothing."""
        client, server = self.pair()
        client.sendall(bytes(1000))
        server.close()
        self.assertEqual(client.recv(100), b"")

    def test_refusal(self) -> None:
        """Without a listener connect fails with ECONNRESET, and polls as POLLOUT and POLLERR only."""
        self.assert_errno(errno.ECONNRESET, self.make().connect, (LOCAL, next(PORTS)))
        attempt = self.make()
        attempt.setblocking(False)
        self.assertEqual(attempt.connect_ex((LOCAL, next(PORTS))), errno.EINPROGRESS)
        poll = select.poll()
        poll.register(attempt, select.POLLIN | select.POLLOUT)
        [(_, events)] = poll.poll(5000)
        self.assertEqual(events, select.POLLOUT | select.POLLERR)
        self.assertEqual(attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), errno.ECONNRESET)

    def test_unknown_cid(self) -> None:
        """A cid that no VM has is ENODEV, at once."""
        self.assert_errno(errno.ENODEV, self.make().connect, (16, 5000))

    def test_full_queue(self) -> None:
        """A full accept queue refuses at once with ECONNRESET, and the kernel does not retry."""
        _, port = self.listen(backlog=1)
        refused = 0
        for _ in range(8):
            attempt = self.make()
            result = attempt.connect_ex((LOCAL, port))
            self.assertIn(result, (0, errno.ECONNRESET))
            refused += result != 0
        self.assertGreater(refused, 0)

    def test_binding(self) -> None:
        """A foreign cid is EADDRNOTAVAIL; any:port and 1:port are EADDRINUSE for each other."""
        self.assert_errno(errno.EADDRNOTAVAIL, self.make().bind, (99, next(PORTS)))
        for first, second in ((CID_ANY, LOCAL), (LOCAL, CID_ANY)):
            _, port = self.listen(first)
            self.assert_errno(errno.EADDRINUSE, self.make().bind, (second, port))

    def test_low_ports(self) -> None:
        """A port below 1024 needs a capability; 1024 does not."""
        with unprivileged():
            self.assert_errno(errno.EACCES, self.make().bind, (CID_ANY, 1023))
            self.make().bind((CID_ANY, 1024))

    def test_buffer(self) -> None:
        """A socket holds 256 KiB for a peer that does not read, and no more."""
        client, _ = self.pair()
        client.setblocking(False)
        held = 0
        with self.assertRaises(BlockingIOError):
            while True:
                held += client.send(bytes(LARGEST_SEND))
        self.assertEqual(held, _BUFFER)

    def test_integer_options(self) -> None:
        """Options that are integers work; a buffer is 256 KiB, and larger only when its bound has been raised."""
        made = self.make()

        def size_of(asked: int) -> int:
            made.setsockopt(socket.AF_VSOCK, socket.SO_VM_SOCKETS_BUFFER_SIZE, asked)
            return made.getsockopt(socket.AF_VSOCK, socket.SO_VM_SOCKETS_BUFFER_SIZE)

        self.assertEqual(made.getsockopt(socket.AF_VSOCK, socket.SO_VM_SOCKETS_BUFFER_SIZE), _BUFFER)
        self.assertEqual(size_of(_BUFFER // 2), _BUFFER // 2)
        self.assertEqual(size_of(_BUFFER * 4), _BUFFER)
        made.setsockopt(socket.AF_VSOCK, socket.SO_VM_SOCKETS_BUFFER_MAX_SIZE, _BUFFER * 4)
        self.assertEqual(size_of(_BUFFER * 4), _BUFFER * 4)

    def test_inherited_listener(self) -> None:
        """A listening descriptor can be passed on: both holders accept from one queue."""
        listening, port = self.listen()
        other = socket.socket(fileno=os.dup(listening.fileno()))
        self.addCleanup(other.close)
        other.settimeout(5)
        for holder in (listening, other):
            self.make().connect((LOCAL, port))
            holder.accept()[0].close()

    def test_stock_adoption(self) -> None:
        """Twisted's own ways to adopt a descriptor refuse the family."""
        listening, _ = self.listen()
        for adopt in (reactor.adoptStreamPort, reactor.adoptStreamConnection):
            self.assertRaises(
                error.UnsupportedAddressFamily,
                adopt,
                listening.fileno(),
                socket.AF_VSOCK,
                Factory.forProtocol(Protocol),
            )

    def test_stock_connection(self) -> None:
        """Twisted's own connection treats the cid as an IP address, and aborting it leaks the socket."""
        client, _ = self.pair()
        clock: Any = MemoryReactorClock()
        connection: Any = tcp.Server(client, Protocol(), client.getpeername(), None, 0, clock)  # type: ignore[arg-type]
        self.assertEqual(connection.getPeer(), IPv4Address("TCP", LOCAL, client.getpeername()[1]))  # type: ignore[arg-type]
        connection.abortConnection()
        self.assertRaises(TypeError, clock.advance, 0)
        os.fstat(client.fileno())


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Run without capabilities, as another user, for a while."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
