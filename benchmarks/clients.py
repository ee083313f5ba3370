"""Our own clients: bulk transfers, new tunnels, round trips, idle connections. All speak through a `Door`."""

from __future__ import annotations

import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.figures import Unmeasured
from benchmarks.processes import Address, open_socket

_BLOCK: Final = 1 << 20
_PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Door:
    """How a client gets a byte stream to the raw server.

    :ivar address: where the proxy listens.
    :ivar connect: the ``host:port`` to send in a CONNECT; None for a proxy that needs none.
    """

    address: Address
    connect: str | None = None

    @property
    def preamble(self) -> bytes:
        """What is sent first."""
        if self.connect is None:
            return b""
        return f"CONNECT {self.connect} HTTP/1.1\r\nHost: {self.connect}\r\n\r\n".encode("ascii")

    def enter(self) -> socket.socket:
        """A connection on which the preamble has been answered.

        :raises Unmeasured: when the proxy refuses it.
        """
        connection = open_socket(self.address, _PATIENCE)
        if self.connect is not None:
            connection.sendall(self.preamble)
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                more = connection.recv(4096)
                if not more:
                    break
                answer += more
            _check(answer)
        return connection


def _check(answer: bytes) -> None:
    if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
        raise Unmeasured(f"CONNECT was answered {_first_line(answer)}")


def _first_line(answer: bytes) -> str:
    return repr(answer.split(b"\r")[0].decode("ascii", "replace"))


def transfer(door: Door, direction: str, count: int, streams: int) -> float:
    """Move *count* bytes through *door*, split among *streams* connections.

    :param direction: ``DOWN`` or ``UP``.
    :returns: the seconds it took, without opening the connections.
    """
    share = count // streams
    connections = [door.enter() for _ in range(streams)]
    failures: list[OSError] = []

    def move(connection: socket.socket) -> None:
        try:
            _move(connection, direction, share)
        except OSError as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=move, args=(connection,)) for connection in connections]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    if failures:
        raise Unmeasured(f"a transfer broke off: {failures[0]}")
    return seconds


def _move(connection: socket.socket, direction: str, count: int) -> None:
    connection.sendall(f"{direction} {count}\n".encode("ascii"))
    block = memoryview(bytearray(_BLOCK))
    if direction == "UP":
        while count:
            connection.sendall(block[: min(count, _BLOCK)])
            count -= min(count, _BLOCK)
        count = 1
    while count:
        got = connection.recv_into(block)
        if not got:
            raise ConnectionError("the connection ended early")
        count -= got


class _Opening:
    """A tunnel under way: connect, preamble, one echoed byte, close."""

    __slots__ = ("answer", "asked", "begun", "connection")

    def __init__(self, door: Door) -> None:
        self.begun = time.perf_counter()
        self.connection = open_socket(door.address, _PATIENCE)
        self.answer = b""
        self.asked = door.connect is None
        self.connection.sendall(door.preamble if door.connect is not None else b"ECHO\nx")

    def readable(self) -> bool:
        """Continue; returns whether the byte has come back."""
        data = self.connection.recv(4096)
        if not data:
            raise Unmeasured("a tunnel ended before a byte had come back")
        if self.asked:
            return True
        self.answer += data
        if self.answer.endswith(b"\r\n\r\n"):
            _check(self.answer)
            self.asked = True
            self.connection.sendall(b"ECHO\nx")
        return False


def churn(door: Door, seconds: float, concurrency: int) -> list[float]:
    """Open tunnels, send a byte through each and back, and close them, as fast as possible.

    :param concurrency: tunnels under way at once.
    :returns: seconds that each took.
    """
    selector = selectors.DefaultSelector()
    took: list[float] = []
    until = time.perf_counter() + seconds
    under_way = 0

    def open_one() -> None:
        opening = _Opening(door)
        selector.register(opening.connection, selectors.EVENT_READ, opening)

    try:
        for _ in range(concurrency):
            open_one()
            under_way += 1
        while under_way:
            events = selector.select(_PATIENCE)
            if not events:
                raise Unmeasured(f"no tunnel for {_PATIENCE:g} s")
            for key, _ in events:
                opening: _Opening = key.data
                if not opening.readable():
                    continue
                took.append(time.perf_counter() - opening.begun)
                selector.unregister(opening.connection)
                opening.connection.close()
                if time.perf_counter() < until:
                    open_one()
                else:
                    under_way -= 1
    except OSError as error:
        raise Unmeasured(f"a tunnel broke off: {error}") from error
    finally:
        for key in list(selector.get_map().values()):
            key.data.connection.close()
        selector.close()
    return took


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A message and its answer.

    :ivar message: the segments that are sent.
    :ivar whole: whether what has come is the complete answer.
    """

    message: Sequence[bytes]
    whole: Callable[[bytes], bool]


def hold(
    connections: Sequence[socket.socket], dialogue: Dialogue, seconds: float, rate: float | None = None
) -> list[float]:
    """Hold *dialogue* again and again, each time on a connection whose previous answer is complete.

    :param rate: messages a second over all connections; None: as many as there are answers.
    :returns: the seconds that each took; with a *rate*, since the message was due: one that had to wait for a
        connection has waited longer.
    """
    free = deque(connections)
    waiting: dict[socket.socket, tuple[float, bytes]] = {}
    took: list[float] = []
    due = time.perf_counter()
    until = due + seconds
    try:
        while True:
            now = time.perf_counter()
            if rate is None:
                due = now
            while free and due <= now and due < until:
                connection = free.popleft()
                waiting[connection] = due, b""
                due += 1 / rate if rate else 0
                for piece in dialogue.message:
                    connection.sendall(piece)
            if not waiting and due >= until:
                return took
            pause = max(0.0, due - now) if free and due < until else _PATIENCE
            # select() and not epoll: it waits for microseconds, and the connections are few.
            readable, _, _ = select.select(list(waiting), [], [], pause)
            if not readable and pause == _PATIENCE:
                raise Unmeasured(f"no answer for {_PATIENCE:g} s")
            for connection in readable:
                data = connection.recv(65536)
                if not data:
                    raise Unmeasured("a connection ended")
                since, before = waiting[connection]
                if dialogue.whole(before + data):
                    took.append(time.perf_counter() - since)
                    del waiting[connection]
                    free.append(connection)
                else:
                    waiting[connection] = since, before + data
    except OSError as error:
        raise Unmeasured(f"a connection broke off: {error}") from error


def round_trips(door: Door, seconds: float, connections: int, size: int) -> list[float]:
    """Send *size* bytes on each connection whenever the previous ones have come back.

    :returns: seconds that each round trip took.
    """
    message = b"m" * size
    with ExitStack() as held:
        opened = [held.enter_context(door.enter()) for _ in range(connections)]
        for connection in opened:
            connection.sendall(b"ECHO\n")
        return hold(opened, Dialogue((message,), lambda answer: len(answer) >= size), seconds)


@contextmanager
def idle_requests(address: Address, request: bytes, count: int) -> Iterator[None]:
    """Hold *count* connections, each after one answered request."""
    connections: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = open_socket(address, _PATIENCE)
            connections.append(connection)
            connection.sendall(request)
            read_answer(connection)
        yield
    except OSError as error:
        raise Unmeasured(f"holding {count} connections failed at {len(connections)}: {error}") from error
    finally:
        for connection in connections:
            connection.close()


@contextmanager
def idle_tunnels(door: Door, count: int) -> Iterator[None]:
    """Hold *count* tunnels, each after one echoed byte."""
    connections: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = door.enter()
            connections.append(connection)
            connection.sendall(b"ECHO\nx")
            if connection.recv(1) != b"x":
                raise Unmeasured("a tunnel ended")
        yield
    except OSError as error:
        raise Unmeasured(f"holding {count} tunnels failed at {len(connections)}: {error}") from error
    finally:
        for connection in connections:
            connection.close()


def burst(connections: Sequence[socket.socket], request: bytes) -> None:
    """Send *request* on all connections at once, then read every answer."""
    for connection in connections:
        connection.sendall(request)
    for connection in connections:
        read_answer(connection)


def read_answer(connection: socket.socket) -> None:
    """Read one HTTP answer that has a Content-Length.

    :raises Unmeasured: unless its status is 200.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise Unmeasured("the connection ended before an answer")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise Unmeasured(f"answered {_first_line(head)}")
    _, _, after = head.lower().partition(b"content-length:")
    left = int(after.split(b"\r\n", 1)[0]) - len(body)
    while left > 0:
        more = connection.recv(65536)
        if not more:
            raise Unmeasured("the connection ended within an answer")
        left -= len(more)
