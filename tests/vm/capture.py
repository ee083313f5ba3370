"""Records what crosses vsock and the loopback, as ``python -m tests.vm.capture DIRECTORY RELAY_PORT TCP_PORT...``.

Until SIGTERM; then it writes all payloads, connection by connection, to files in DIRECTORY: ``relay`` (vsock, to and
from RELAY_PORT), ``other`` (the rest of vsock), ``tcp`` (the loopback, to and from the TCP_PORTs) and ``counts.json``.
It needs a ``vsockmon`` interface that is up.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import struct
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final

#: struct af_vsockmon_hdr: cids, ports, operation, transport, length of the transport's header that follows.
_VSOCKMON: Final = struct.Struct("<QQIIHHH2x")
_PAYLOAD: Final = 4
_ALL_PROTOCOLS: Final = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_OUTGOING, _SO_RCVBUFFORCE = 263, 6, 4, 33
_BUFFER_BYTES: Final = 64 << 20
_Flow = tuple[object, ...]


class Capture:
    """What has crossed, by its kind and its connection.

    :param relay_port: the vsock port of the relay.
    :param tcp_ports: ports on the loopback.
    """

    def __init__(self, relay_port: int, tcp_ports: set[int]) -> None:
        self._relay_port = relay_port
        self._tcp_ports = tcp_ports
        self._flows: dict[str, dict[_Flow, bytearray]] = defaultdict(lambda: defaultdict(bytearray))
        self._packets: Counter[str] = Counter()

    def vsock(self, packet: bytes) -> None:
        """Take a packet of vsockmon."""
        from_cid, to_cid, from_port, to_port, operation, _, length = _VSOCKMON.unpack_from(packet)
        if operation == _PAYLOAD:
            kind = "relay" if self._relay_port in (from_port, to_port) else "other"
            self._packets[kind] += 1
            self._flows[kind][from_cid, from_port, to_cid, to_port] += packet[_VSOCKMON.size + length :]

    def tcp(self, packet: bytes) -> None:
        """Take an IPv4 packet, without a header below it."""
        header = (packet[0] & 15) * 4
        if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
            return
        from_port, to_port = struct.unpack_from("!HH", packet, header)
        if {from_port, to_port} & self._tcp_ports:
            end = struct.unpack_from("!H", packet, 2)[0] or len(packet)
            self._packets["tcp"] += 1
            self._flows["tcp"][from_port, to_port] += packet[header + (packet[header + 12] >> 4) * 4 : end]

    def write(self, directory: Path, dropped: int) -> None:
        """Write everything to *directory*."""
        for kind in ("relay", "other", "tcp"):
            (directory / kind).write_bytes(b"\0".join(self._flows[kind].values()))
        (directory / "counts.json").write_text(json.dumps({"dropped": dropped, **self._packets}))


def _listen(interface: str, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, kind, 0)
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    made.bind((interface, _ALL_PROTOCOLS))
    made.setblocking(False)
    return made


def _read_all(source: socket.socket, take: Callable[[bytes], None]) -> None:
    with suppress(BlockingIOError):
        while True:
            packet, address = source.recvfrom(1 << 17)
            if address[2] != _PACKET_OUTGOING or address[0] != "lo":  # the loopback shows every packet twice
                take(packet)


def main(directory: Path, relay_port: int, tcp_ports: set[int]) -> None:
    """Record until SIGTERM."""
    capture = Capture(relay_port, tcp_ports)
    ending: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        ending.append(number)

    signal.signal(signal.SIGTERM, end)
    sources = {
        _listen("vsockmon0", socket.SOCK_RAW): capture.vsock,
        _listen("lo", socket.SOCK_DGRAM): capture.tcp,
    }
    print("capturing", flush=True)
    while (ready := select.select(list(sources), [], [], 0.2)[0]) or not ending:
        for source in ready:
            _read_all(source, sources[source])
    dropped = sum(struct.unpack("II", each.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1] for each in sources)
    capture.write(directory, dropped)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), {int(port) for port in sys.argv[3:]})
