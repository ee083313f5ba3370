"""`python -m benchmarks.raw PORT [PATH]`: a server without a protocol, on TCP and at a UNIX socket, behind tunnels.

The first line of a connection is a command. ``DOWN n``: the server sends *n* bytes. ``UP n``: it reads *n* bytes and
answers with one. ``ECHO``: it returns what it receives. ``POST``: an HTTP upload, whose bodies it reads and answers.
``GET``: it answers with 1 KiB in two segments, the head and the body.
"""

from __future__ import annotations

import re
import selectors
import socket
import sys
import threading
from typing import Final

_BLOCK: Final = 1 << 20


def _send(connection: socket.socket, count: int) -> None:
    block = memoryview(bytes(_BLOCK))
    while count:
        connection.sendall(block[: min(count, _BLOCK)])
        count -= min(count, _BLOCK)


def _receive(connection: socket.socket, count: int) -> None:
    block = memoryview(bytearray(_BLOCK))
    while count:
        got = connection.recv_into(block[: min(count, _BLOCK)])
        if not got:
            raise ConnectionError
        count -= got


def _next_head(connection: socket.socket, data: bytes) -> tuple[bytes, bytes] | None:
    """The head of the next request, of which *data* has come, and what came after it; None at the end."""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _uploads(connection: socket.socket, data: bytes) -> None:
    while (found := _next_head(connection, data)) is not None:
        head, body = found
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if length is None:
            raise ConnectionError
        _receive(connection, int(length[1]) - len(body))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        data = b""


def _segments(connection: socket.socket, data: bytes) -> None:
    while (found := _next_head(connection, data)) is not None:
        data = found[1]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n")
        connection.sendall(b"k" * 1024)


def _serve_bulk(connection: socket.socket, command: bytes, early: bytes) -> None:
    try:
        connection.setblocking(True)
        if command.startswith(b"POST"):
            _uploads(connection, early)
        elif command.startswith(b"GET"):
            _segments(connection, early)
        elif command.startswith(b"DOWN"):
            _send(connection, int(command.split()[1]))
        else:
            _receive(connection, int(command.split()[1]) - len(early))
            connection.sendall(b".")
    except (OSError, ValueError):
        return  # The client left, or sent something else.
    finally:
        connection.close()


def serve(port: int, path: str | None = None) -> None:
    """Serve on *port* of loopback, and at the UNIX socket *path*, until the process is ended."""
    selector = selectors.DefaultSelector()
    listeners = []
    if path is not None:
        listeners.append(socket.socket(socket.AF_UNIX))
        listeners[0].bind(path)
        listeners[0].listen(4096)
    # Last, because the program that starts this one waits for the port.
    listeners.append(socket.create_server(("127.0.0.1", port), backlog=4096))
    for listener in listeners:
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ)
    echoing: set[socket.socket] = set()

    def drop(connection: socket.socket) -> None:
        selector.unregister(connection)
        echoing.discard(connection)

    def first(connection: socket.socket, data: bytes) -> None:
        command, _, rest = data.partition(b"\n")
        if command == b"ECHO":
            echoing.add(connection)
            if rest:
                connection.sendall(rest)
            return
        drop(connection)
        early = data if command.startswith((b"POST", b"GET")) else rest
        threading.Thread(target=_serve_bulk, args=(connection, command, early), daemon=True).start()

    def readable(connection: socket.socket) -> None:
        try:
            data = connection.recv(65536)
            if not data:
                raise ConnectionError
            if connection in echoing:
                connection.sendall(data)
            else:
                first(connection, data)
        except BlockingIOError:
            return
        except OSError:
            drop(connection)
            connection.close()

    while True:
        for key, _ in selector.select():
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            if ready not in listeners:
                readable(ready)
                continue
            try:
                connection, _ = ready.accept()
            except OSError:
                continue
            connection.setblocking(False)
            if connection.family == socket.AF_INET:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(connection, selectors.EVENT_READ)


if __name__ == "__main__":
    serve(int(sys.argv[1]), *sys.argv[2:3])
