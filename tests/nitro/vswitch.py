"""A vsock device in user space: each VM is connected to it by vhost-user, and it moves the packets between them.

A VM with a directory has this machine as its parent (CID 2 and 3), in nitroproxy's own "unix" transport: what the
guest connects to at 3:N is DIRECTORY/host/N.sock, and each port P of the guest that is given is DIRECTORY/enclave/
P.sock. Port 9000, the boot heartbeat, is answered here when nothing listens there. DIRECTORY/stranger/P.sock leads to
the same port, from a CID that is not the parent's.

A control socket takes a word a line: ``hold`` and ``release`` stop and resume all packets, ``starve`` and ``feed``
withhold and give the guest's credit, ``reset`` resets every connection.

usage: python -m tests.nitro.vswitch CONTROL CID=SOCKET[,DIRECTORY[,PORT...]] ...
"""

from __future__ import annotations

import socket
import struct
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from tests.nitro.loop import READ, WRITE, Loop
from tests.nitro.packets import (
    CREDIT,
    CREDIT_REQUEST,
    HEADER,
    NO_MORE_READS,
    NO_MORE_WRITES,
    REQUEST,
    RESPONSE,
    RST,
    RW,
    SHUTDOWN,
    STREAM,
    Header,
)
from tests.nitro.vhost_user import Device

_HEARTBEAT_PORT: Final = 9000
_HEARTBEAT: Final = b"\xb7"
#: Bytes that a guest may send ahead, and of one read from a UNIX socket.
_WINDOW: Final = 256 * 1024
_PIECE: Final = 32 * 1024
_PARENTS: Final = (2, 3)
_STRANGER: Final = 77


@dataclass
class Faults:
    """What goes wrong on purpose."""

    held: bool = False
    starved: bool = False


class Switch:
    """All VMs of one process, by CID."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.vms: dict[int, VM] = {}
        self.faults = Faults()
        #: Connections between two VMs, each in both directions: (cid, port, cid, port).
        self.links: set[tuple[int, int, int, int]] = set()

    def control(self, path: Path) -> None:
        """Take words at *path*."""
        self.loop.listen(path, self._controlled)

    def _controlled(self, peer: socket.socket) -> None:
        def read(events: int) -> None:
            data = peer.recv(4096)
            for word in data.decode().split():
                peer.sendall(b"ok\n" if self._obey(word) else b"unknown\n")
            if not data:
                self.loop.forget(peer)
                peer.close()

        self.loop.watch(peer, READ, read)

    def _obey(self, word: str) -> bool:
        vms = list(self.vms.values())
        if word in ("hold", "release"):
            self.faults.held = word == "hold"
            for vm in vms:
                vm.work()
        elif word in ("starve", "feed"):
            self.faults.starved = word == "starve"
            for vm in vms:
                vm.tell_credit()
        elif word == "reset":
            for vm in vms:
                vm.reset()
        else:
            return False
        return True


class VM(Device):
    """One VM's vsock device.

    :param directory: where this machine is its parent; None when another VM is.
    """

    def __init__(self, switch: Switch, cid: int, path: Path, directory: Path | None, ports: Sequence[int]) -> None:
        super().__init__(switch.loop, path, 2)
        self.cid = cid
        self.configuration = struct.pack("<Q", cid)
        self.switch = switch
        self._directory = directory
        self._waiting: deque[tuple[Header, bytes]] = deque()
        self._connections: dict[tuple[int, int, int], Connection] = {}
        self._next_port = 1 << 30
        self._ports = ports
        self._listening: list[tuple[Path, socket.socket]] = []

    def _listen(self) -> None:
        """The guest's driver is there: from now on its ports can be dialled, as on Nitro."""
        if self._directory is None or self._listening or not self.rings[0].ready:
            return
        for folder, source in (("enclave", _PARENTS[1]), ("stranger", _STRANGER)):
            (self._directory / folder).mkdir(parents=True, exist_ok=True)
            for port in self._ports:
                path = self._directory / folder / f"{port}.sock"
                dialled = partial(self._dialled, source, port)
                self._listening.append((path, self.loop.listen(path, dialled)))

    def stopped(self) -> None:
        """See `Device`: those that were connected to it hear so at once."""
        self._waiting.clear()
        while self._listening:
            path, listening = self._listening.pop()
            path.unlink()
            self.loop.forget(listening)
            listening.close()
        for connection in list(self._connections.values()):
            connection.end()
        self._reset_links(told=(False, True))

    def reset(self) -> None:
        """Reset all its connections."""
        for connection in list(self._connections.values()):
            self.tell(connection.key, RST)
            connection.end()
        self._reset_links(told=(True, True))

    def _reset_links(self, told: tuple[bool, bool]) -> None:
        links = self.switch.links
        for cid, port, other, other_port in [link for link in links if link[0] == self.cid]:
            links.difference_update({(cid, port, other, other_port), (other, other_port, cid, port)})
            if told[0]:
                self.give(Header(other, cid, other_port, port, 0, STREAM, RST, 0, 0, 0))
            if told[1] and other in self.switch.vms:
                self.switch.vms[other].give(Header(cid, other, port, other_port, 0, STREAM, RST, 0, 0, 0))

    def work(self) -> None:
        """See `Device`: what the guest has sent, and what waits for its buffers."""
        self._listen()
        self.flush()
        ring = self.rings[1]
        while not self.switch.faults.held and (chain := ring.chain()):
            packet = b"".join(chain.readable)
            ring.done(chain, 0)
            self._sent(Header(*HEADER.unpack_from(packet)), packet[HEADER.size :])

    def give(self, header: Header, data: bytes = b"") -> None:
        """Send the guest a packet; its data goes in as many as its buffers need."""
        self._waiting.append((header, data))
        self.flush()

    def flush(self) -> None:
        """Put what waits into the guest's buffers."""
        ring = self.rings[0]
        while self._waiting and not self.switch.faults.held and (chain := ring.chain()):
            header, data = self._waiting[0]
            room = sum(map(len, chain.writable)) - HEADER.size
            now, later = data[:room], data[room:]
            written = chain.write(replace(header, length=len(now)).pack() + now)
            if later:
                self._waiting[0] = (header, later)
            else:
                self._waiting.popleft()
            ring.done(chain, written)

    def _sent(self, header: Header, data: bytes) -> None:
        other = self.switch.vms.get(header.target)
        if other is not None:
            self._forward(other, header, data)
        elif header.target in (*_PARENTS, _STRANGER) and self._directory is not None and header.kind == STREAM:
            self._to_parent(header, data)
        # Nothing answers for an unknown CID: the guest's connect times out, as on Nitro.

    def _forward(self, other: VM, header: Header, data: bytes) -> None:
        if not other.rings[0].ready:  # it has ended: at once for who connects, as on a Nitro host
            if header.operation != RST:
                back = (header.target, header.source, header.target_port, header.source_port)
                self.give(Header(*back, 0, STREAM, RST, 0, 0, 0))
            return
        link = (header.source, header.source_port, header.target, header.target_port)
        both = {link, link[2:] + link[:2]}
        if header.operation == RST:
            self.switch.links.difference_update(both)
        else:
            self.switch.links.update(both)
        if self.switch.faults.starved and header.operation == CREDIT:
            return
        other.give(header, data)

    def _to_parent(self, header: Header, data: bytes) -> None:
        key = (header.target, header.target_port, header.source_port)
        connection = self._connections.get(key)
        if header.operation == REQUEST:
            self._answer(key, header.window)
        elif connection is not None:
            connection.packet(header, data)
        elif header.operation != RST:
            self.tell(key, RST)

    def tell(
        self, key: tuple[int, int, int], operation: int, data: bytes = b"", flags: int = 0, forwarded: int = 0
    ) -> None:
        """Send the guest a packet of the connection *key*: the parent's CID, its port, the guest's port."""
        cid, port, guest_port = key
        window = 0 if self.switch.faults.starved else _WINDOW
        kept = forwarded & 0xFFFFFFFF
        self.give(Header(cid, self.cid, port, guest_port, len(data), STREAM, operation, flags, window, kept), data)

    def tell_credit(self) -> None:
        """Tell the guest its credit on every connection."""
        for connection in self._connections.values():
            connection.tell_credit()

    def forget(self, key: tuple[int, int, int]) -> None:
        """A connection has ended."""
        self._connections.pop(key, None)

    def _answer(self, key: tuple[int, int, int], window: int) -> None:
        assert self._directory is not None
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.connect(str(self._directory / "host" / f"{key[1]}.sock"))
        except OSError:
            peer.close()
            if key[1] != _HEARTBEAT_PORT:
                self.tell(key, RST)
                return
            peer, mine = socket.socketpair()
            mine.sendall(_HEARTBEAT)
            mine.shutdown(socket.SHUT_WR)
            mine.detach()  # it lives as long as the guest's end
        connection = self._connections[key] = Connection(self, key, peer)
        connection.window = window
        self.tell(key, RESPONSE)
        connection.established()

    def _dialled(self, source: int, port: int, peer: socket.socket) -> None:
        self._next_port += 1
        key = (source, self._next_port, port)
        self._connections[key] = Connection(self, key, peer)
        self.tell(key, REQUEST)


class Connection:
    """A connection between the guest and a UNIX socket: the credit, and each direction's end by itself."""

    def __init__(self, vm: VM, key: tuple[int, int, int], peer: socket.socket) -> None:
        peer.setblocking(False)
        self.key = key
        self.window = 0
        self._vm = vm
        self._peer = peer
        self._events = 0
        self._open = False
        self._ended = False
        self._taken = self._sent = self._forwarded = self._told = 0
        self._buffer = bytearray()
        self._read_ended = self._write_ending = self._write_ended = False

    def established(self) -> None:
        """Both ends are there."""
        self._open = True
        self._look()

    def packet(self, header: Header, data: bytes) -> None:
        """The guest has sent *header* with *data*."""
        self.window, self._taken = header.window, header.forwarded
        if header.operation == RESPONSE:
            self.established()
        elif header.operation == RW:
            self._buffer += data
            self._write()
        elif header.operation == CREDIT_REQUEST:
            self.tell_credit()
        elif header.operation == SHUTDOWN:
            self._shut_down(header.flags)
        elif header.operation == RST:
            self.end()
        self._look()

    def _shut_down(self, flags: int) -> None:
        if flags & NO_MORE_WRITES:
            self._write_ending = True
        self._write()
        if flags == NO_MORE_READS | NO_MORE_WRITES and not self._buffer and not self._ended:
            self._vm.tell(self.key, RST)
            self.end()

    def end(self) -> None:
        """Close the UNIX socket."""
        if not self._ended:
            self._ended = True
            self._vm.loop.forget(self._peer)
            self._peer.close()
            self._vm.forget(self.key)

    def tell_credit(self) -> None:
        """Tell the guest how much more it may send."""
        self._told = self._forwarded
        self._vm.tell(self.key, CREDIT, forwarded=self._forwarded)

    def _credit(self) -> int:
        return self.window - ((self._sent - self._taken) & 0xFFFFFFFF)

    def _look(self) -> None:
        """Watch for what can be done now."""
        if self._ended:
            return
        events = READ if self._open and not self._read_ended and self._credit() > 0 else 0
        events |= WRITE if self._buffer else 0
        if events != self._events:
            self._events = events
            self._vm.loop.watch(self._peer, events, self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._write()
        if events & READ and not self._ended:
            self._read()
        self._look()

    def _read(self) -> None:
        try:
            data = self._peer.recv(min(_PIECE, self._credit()))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._sent += len(data)
            self._vm.tell(self.key, RW, data, forwarded=self._forwarded)
            return
        self._read_ended = True
        flags = NO_MORE_WRITES | (NO_MORE_READS if self._write_ended else 0)
        self._vm.tell(self.key, SHUTDOWN, flags=flags, forwarded=self._forwarded)

    def _write(self) -> None:
        try:
            while self._buffer:
                count = self._peer.send(self._buffer)
                self._forwarded += count
                del self._buffer[:count]
        except BlockingIOError:
            pass
        except OSError:
            self._vm.tell(self.key, RST)
            self.end()
            return
        if self._forwarded - self._told >= _WINDOW // 4:
            self.tell_credit()
        if self._write_ending and not self._buffer and not self._write_ended:
            self._write_ended = True
            try:
                self._peer.shutdown(socket.SHUT_WR)
            except OSError:
                self.end()


def main(arguments: Sequence[str]) -> None:
    """Run until a signal."""
    loop = Loop()
    switch = Switch(loop)
    for argument in arguments[1:]:
        cid, _, rest = argument.partition("=")
        path, *more = rest.split(",")
        directory = Path(more[0]) if more else None
        switch.vms[int(cid)] = VM(switch, int(cid), Path(path), directory, [int(port) for port in more[1:]])
    switch.control(Path(arguments[0]))
    loop.run()


if __name__ == "__main__":
    main(sys.argv[1:])
