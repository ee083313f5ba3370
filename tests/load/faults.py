"""A byte proxy that injects faults between two hops, on UNIX or TCP sockets."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: A UNIX socket's path, a TCP port on loopback, or a vsock CID and port (in a guest only).
Place = Path | int | tuple[int, int]


@dataclass(frozen=True)
class Fault:
    """The faults of one direction of one connection. Counts are bytes since its beginning.

    :ivar latency: seconds that each piece is held back.
    :ivar piece: the most bytes passed on at a time; 0: as they arrive.
    :ivar bandwidth: bytes a second; 0: unlimited.
    :ivar reset_after: bytes after which both connections are aborted.
    :ivar truncate_after: bytes after which the receiver gets an end of input.
    :ivar stall_after: bytes after which nothing more arrives.
    """

    latency: float = 0.0
    piece: int = 0
    bandwidth: int = 0
    reset_after: int | None = None
    truncate_after: int | None = None
    stall_after: int | None = None


HARMLESS = Fault()
#: The faults of the bytes from the connecting side, and of those towards it.
Pair = tuple[Fault, Fault]


async def connect(place: Place) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to *place*."""
    if isinstance(place, Path):
        return await asyncio.open_unix_connection(place)
    if isinstance(place, tuple):
        connecting = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        connecting.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connecting, place)
        except BaseException:
            connecting.close()
            raise
        return await asyncio.open_connection(sock=connecting)
    return await asyncio.open_connection("127.0.0.1", place)


def _closed(writer: asyncio.StreamWriter) -> bool:
    """Whether the peer of a connection whose input has ended has closed both directions, as far as the kernel says."""
    descriptor = writer.get_extra_info("socket").fileno()
    if descriptor < 0:
        return True
    poller = select.poll()
    poller.register(descriptor, 0)
    return bool(poller.poll(0))


class FaultProxy:
    """Passes each connection made to it on to *onward*, with the faults that *choose* gives for it.

    :ivar harmed: connections on which something was broken off.
    """

    def __init__(self, onward: Place, choose: Callable[[], Pair] = lambda: (HARMLESS, HARMLESS)) -> None:
        self.onward = onward
        self.choose = choose
        self.harmed = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def listen(self, place: Path | int) -> int:
        """Listen at *place*; returns the port (0 for a UNIX socket). Port 0 is any free one."""
        if isinstance(place, Path):
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._server = await asyncio.start_unix_server(self._serve, place, backlog=1024)
            return 0
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", place, backlog=1024)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop, and abort every connection."""
        if self._server is not None:
            self._server.close()
        self.abort_all()

    def abort_all(self) -> None:
        """Abort every connection, as a killed process would."""
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = self.choose()
        try:
            onward_reader, onward_writer = await connect(self.onward)
        except OSError:
            writer.transport.abort()
            return
        ends = (writer, onward_writer)
        self._open.update(ends)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # The trial is over.
                await asyncio.gather(
                    self._pump(reader, onward_writer, up, ends), self._pump(onward_reader, writer, down, ends)
                )
        finally:
            for end in ends:
                self._open.discard(end)
                end.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        fault: Fault,
        ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        passed = 0
        try:
            while data := await reader.read(fault.piece or 65536):
                left = self._left(fault, passed)
                if left is not None and len(data) >= left:
                    writer.write(data[:left])
                    self.harmed += 1
                    await self._break(fault, writer, ends)
                    return
                if fault.latency:
                    await asyncio.sleep(fault.latency)
                if fault.bandwidth:
                    await asyncio.sleep(len(data) / fault.bandwidth)
                writer.write(data)
                passed += len(data)
                await writer.drain()
            if _closed(ends[1] if writer is ends[0] else ends[0]):
                writer.close()  # It has closed both directions, not only one.
            elif writer.can_write_eof():
                writer.write_eof()
        except OSError:  # A reset at one end becomes a reset at the other.
            for end in ends:
                end.transport.abort()

    @staticmethod
    def _left(fault: Fault, passed: int) -> int | None:
        limits = [limit for limit in (fault.reset_after, fault.truncate_after, fault.stall_after) if limit is not None]
        return min(limits) - passed if limits else None

    @staticmethod
    async def _break(
        fault: Fault, writer: asyncio.StreamWriter, ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    ) -> None:
        if fault.reset_after is not None:
            for end in ends:
                end.transport.abort()
        elif fault.truncate_after is not None:
            writer.write_eof()
        else:
            while not writer.transport.is_closing():
                await asyncio.sleep(0.1)
