"""The back end of a vhost-user device: QEMU hands the guest's memory and rings over on a UNIX socket (QEMU's
docs/interop/vhost-user.rst). Split rings, without indirect descriptors and event indices.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.nitro.loop import READ, Loop

#: Feature bits: VIRTIO_F_VERSION_1, VHOST_USER_F_PROTOCOL_FEATURES; and of the protocol CONFIG, which is all we speak.
_VERSION_1: Final = 1 << 32
_PROTOCOL: Final = 1 << 30
_CONFIG: Final = 1 << 9
#: Requests of the front end.
GET_FEATURES, SET_MEM_TABLE, SET_VRING_NUM, SET_VRING_ADDR = 1, 5, 8, 9
SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL = 10, 11, 12, 13
GET_PROTOCOL_FEATURES, SET_VRING_ENABLE, GET_CONFIG = 15, 18, 24
_HEAD: Final = struct.Struct("<III")
_REPLY_FLAGS: Final = 0x5
#: Descriptor flags: another follows; the device writes to it. And of the available ring: do not interrupt.
_NEXT, _WRITE, _NO_INTERRUPT = 1, 2, 1

#: A place in the guest's memory: a view of its region and the offset in it.
Place = tuple[memoryview, int]


@dataclass(frozen=True)
class Region:
    """A piece of the guest's memory: where the guest and where QEMU have it, and the view of it here."""

    physical: int
    user: int
    size: int
    view: memoryview
    offset: int

    def place(self, address: int, base: int) -> Place | None:
        """Where *address* is, if it is in this region, which begins at *base*."""
        return (self.view, address - base + self.offset) if base <= address < base + self.size else None


@dataclass
class Chain:
    """A chain of descriptors from the guest.

    :ivar head: its number.
    """

    head: int
    readable: list[memoryview] = field(default_factory=list)
    writable: list[memoryview] = field(default_factory=list)

    def write(self, data: bytes) -> int:
        """Fill the writable part with *data*, as far as it fits; the bytes written."""
        at = 0
        for view in self.writable:
            part = data[at : at + len(view)]
            view[: len(part)] = part
            at += len(part)
        return at


class Ring:
    """One virtqueue."""

    def __init__(self, guest: Callable[[int], Place]) -> None:
        self._guest = guest
        self.clear()

    def clear(self) -> None:
        """As before QEMU set it up."""
        self.size = self.last = 0
        self.kick: int | None = None
        self.call: int | None = None
        self.on = False
        self.places: tuple[Place, Place, Place] | None = None

    @property
    def ready(self) -> bool:
        """Whether buffers can be taken from it and given back."""
        return self.on and self.places is not None and self.call is not None

    def chain(self) -> Chain | None:
        """The next chain that the guest has made available."""
        if not self.ready or self.places is None:
            return None
        (descriptors, at_descriptors), (available, at_available), _ = self.places
        if struct.unpack_from("<H", available, at_available + 2)[0] == self.last:
            return None
        (index,) = struct.unpack_from("<H", available, at_available + 4 + 2 * (self.last % self.size))
        self.last = (self.last + 1) & 0xFFFF
        chain = Chain(index)
        while True:
            address, length, flags, following = struct.unpack_from("<QIHH", descriptors, at_descriptors + 16 * index)
            view, offset = self._guest(address)
            (chain.writable if flags & _WRITE else chain.readable).append(view[offset : offset + length])
            if not flags & _NEXT:
                return chain
            index = following

    def done(self, chain: Chain, written: int, *, tell: bool = True) -> None:
        """Give *chain* back with so many bytes written.

        :param tell: whether to interrupt the guest, unless it does not want to be.
        """
        assert self.places is not None and self.call is not None
        _, (available, at_available), (used, at_used) = self.places
        (index,) = struct.unpack_from("<H", used, at_used + 2)
        struct.pack_into("<II", used, at_used + 4 + 8 * (index % self.size), chain.head, written)
        struct.pack_into("<H", used, at_used + 2, (index + 1) & 0xFFFF)
        if tell and not struct.unpack_from("<H", available, at_available)[0] & _NO_INTERRUPT:
            os.eventfd_write(self.call, 1)


class Device:
    """A device of one VM, which QEMU connects to at *path*.

    :cvar configuration: what the guest reads of it.
    """

    configuration = b""

    def __init__(self, loop: Loop, path: Path, rings: int) -> None:
        self.loop = loop
        self.rings = [Ring(self._guest) for _ in range(rings)]
        self._regions: list[Region] = []
        self._control: socket.socket | None = None
        loop.listen(path, self._connected)

    def work(self) -> None:
        """The guest may have put something into a ring."""

    def stopped(self) -> None:
        """The VM has ended."""

    def _connected(self, control: socket.socket) -> None:
        self._control = control
        self.loop.watch(control, READ, lambda events: self._message(control))

    def _gone(self, control: socket.socket) -> None:
        self.loop.forget(control)
        control.close()
        for ring in self.rings:
            if ring.kick is not None:
                self.loop.forget(ring.kick)
            for descriptor in (ring.kick, ring.call):
                if descriptor is not None:
                    os.close(descriptor)
            ring.clear()
        self._regions.clear()
        self.stopped()

    def _message(self, control: socket.socket) -> None:
        try:
            head, descriptors, _, _ = socket.recv_fds(control, _HEAD.size, 16)
        except ConnectionResetError:
            head, descriptors = b"", []
        if len(head) < _HEAD.size:
            self._gone(control)
            return
        request, _, size = _HEAD.unpack(head)
        body = b""
        while len(body) < size:
            body += control.recv(size - len(body))
        reply = self._handle(request, body, descriptors)
        if reply is not None:
            control.sendall(_HEAD.pack(request, _REPLY_FLAGS, len(reply)) + reply)
        if request in (SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ENABLE):
            self.work()

    def _handle(self, request: int, body: bytes, descriptors: Sequence[int]) -> bytes | None:
        if request == GET_FEATURES:
            return struct.pack("<Q", _VERSION_1 | _PROTOCOL)
        if request == GET_PROTOCOL_FEATURES:
            return struct.pack("<Q", _CONFIG)
        if request == GET_CONFIG:
            offset, length, _ = struct.unpack_from("<III", body)
            return body[:12] + self.configuration[offset : offset + length].ljust(length, b"\0")
        if request == SET_MEM_TABLE:
            self._map(body, descriptors)
        elif request in (SET_VRING_NUM, SET_VRING_BASE, SET_VRING_ENABLE, GET_VRING_BASE, SET_VRING_ADDR):
            return self._set_up(request, body)
        elif request in (SET_VRING_KICK, SET_VRING_CALL) and descriptors:
            self._signals(request, self.rings[struct.unpack_from("<Q", body)[0] & 0xFF], descriptors[0])
        return None

    def _map(self, body: bytes, descriptors: Sequence[int]) -> None:
        self._regions.clear()
        for number, descriptor in enumerate(descriptors):
            physical, size, user, offset = struct.unpack_from("<QQQQ", body, 8 + 32 * number)
            view = memoryview(mmap.mmap(descriptor, size + offset))
            self._regions.append(Region(physical, user, size, view, offset))
            os.close(descriptor)

    def _set_up(self, request: int, body: bytes) -> bytes | None:
        index, number = struct.unpack_from("<II", body)
        ring = self.rings[index]
        if request == SET_VRING_NUM:
            ring.size = number
        elif request == SET_VRING_BASE:
            ring.last = number
        elif request == SET_VRING_ENABLE:
            ring.on = bool(number)
        elif request == SET_VRING_ADDR:
            _, _, descriptors, used, available, _ = struct.unpack_from("<IIQQQQ", body)
            ring.places = (self._user(descriptors), self._user(available), self._user(used))
        else:
            ring.on = False
            return struct.pack("<II", index, ring.last)
        return None

    def _signals(self, request: int, ring: Ring, descriptor: int) -> None:
        if request == SET_VRING_KICK:
            if ring.kick is not None:
                self.loop.forget(ring.kick)
                os.close(ring.kick)
            ring.kick, ring.on = descriptor, True
            self.loop.watch(descriptor, READ, lambda events: self._kicked(descriptor))
        else:
            if ring.call is not None:
                os.close(ring.call)
            ring.call = descriptor
            os.eventfd_write(descriptor, 1)  # what was signalled on the one before may be lost

    def _kicked(self, descriptor: int) -> None:
        os.eventfd_read(descriptor)
        self.work()

    def _user(self, address: int) -> Place:
        return self._find(address, [region.place(address, region.user) for region in self._regions])

    def _guest(self, address: int) -> Place:
        return self._find(address, [region.place(address, region.physical) for region in self._regions])

    @staticmethod
    def _find(address: int, places: Sequence[Place | None]) -> Place:
        for place in places:
            if place is not None:
                return place
        raise ValueError(f"the guest has no memory at {address:#x}")
