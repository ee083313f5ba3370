"""The two messages to the kernel: `nitroproxy.transparent.netlink`. That it obeys: `test_transparent_network`."""

from __future__ import annotations

import errno
import os
import socket
import struct
from ipaddress import ip_address
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.transparent.netlink import add_address, make_all_local, message


class FakeKernel:
    """The kernel's end of a netlink socket."""

    code = 0
    kind = 2

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def __call__(self, *arguments: int) -> Any:
        """See `socket.socket`."""
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *arguments: object) -> None:
        """Nothing."""

    def settimeout(self, seconds: float) -> None:
        """See `socket.socket`."""

    def sendto(self, data: bytes, place: object) -> None:
        """See `socket.socket`."""
        self.asked.append(data)

    def recv(self, size: int) -> bytes:
        """The answer."""
        return struct.pack("=IHHIIi", 36, self.kind, 0, 1, 0, -self.code) + self.asked[-1][:16]


class NetlinkTests(SynchronousTestCase):
    """What is asked, and what is made of the answer."""

    def setUp(self) -> None:
        self.kernel = FakeKernel()
        self.patch(socket, "socket", self.kernel)

    def test_message(self) -> None:
        """A header with the whole length, then attributes, each aligned to four bytes."""
        data = message(20, b"head", [(1, b"abc"), (2, b"abcd")])
        self.assertEqual(struct.unpack_from("=IHHII", data), (len(data), 20, 0x405, 1, 0))
        self.assertEqual(data[16:], b"head" + b"\7\0\1\0abc\0" + b"\10\0\2\0abcd")

    def test_address(self) -> None:
        """An address, alone on its network."""
        add_address(1, ip_address("198.18.0.1"))
        add_address(1, ip_address("fd00::1"))
        self.assertEqual(
            [tuple(struct.unpack_from("=BBBBI", data, 16)) for data in self.kernel.asked],
            [(socket.AF_INET, 32, 2, 0, 1), (socket.AF_INET6, 128, 2, 0, 1)],
        )
        self.assertEqual(self.kernel.asked[0].count(bytes([198, 18, 0, 1])), 2)

    def test_route(self) -> None:
        """All addresses are local, from a source."""
        make_all_local(1, ip_address("198.18.0.1"))
        [data] = self.kernel.asked
        self.assertEqual(struct.unpack_from("=BBBBBBBBI", data, 16), (socket.AF_INET, 0, 0, 0, 255, 3, 254, 2, 0))
        self.assertEqual(data[28:], b"\10\0\4\0\1\0\0\0" + b"\10\0\7\0" + bytes([198, 18, 0, 1]))

    def test_refused(self) -> None:
        """What the kernel refuses is raised; what is there already is not."""
        self.kernel.code = errno.EEXIST
        add_address(1, ip_address("198.18.0.1"))
        self.kernel.code = errno.EPERM
        error = self.assertRaises(PermissionError, add_address, 1, ip_address("198.18.0.1"))
        self.assertEqual(error.strerror, os.strerror(errno.EPERM))
        self.kernel.kind, self.kernel.code = 16, 0
        self.assertRaises(OSError, make_all_local, 1, ip_address("198.18.0.1"))
