"""`python -m benchmarks.holder PORT CA COUNT`: the memory of COUNT idle TLS connections with localhost:PORT.

pyOpenSSL with memory BIOs as Twisted uses it, and nothing else. Each connection has received one small page and was
resumed from the first. Prints the growth of the resident memory, in bytes a connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys

from OpenSSL import SSL

from benchmarks.proc import rss_bytes
from benchmarks.processes import raise_descriptor_limit

_REQUEST = b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n"


class _Connection:
    """One connection."""

    def __init__(self, context: SSL.Context, port: int, session: SSL.Session | None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self.tls = SSL.Connection(context, None)
        self.tls.set_tlsext_host_name(b"localhost")
        self.tls.set_connect_state()
        if session is not None:
            self.tls.set_session(session)
        self._shake_hands()
        self.tls.send(_REQUEST)
        self._send()
        answer = b""
        while not answer.endswith(b"k" * 1024):
            self.tls.bio_write(self._socket.recv(32768))
            with contextlib.suppress(SSL.WantReadError):
                answer += self.tls.recv(32768)

    def _shake_hands(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except SSL.WantReadError:
                self._send()
                self.tls.bio_write(self._socket.recv(32768))
            else:
                return

    def _send(self) -> None:
        with contextlib.suppress(SSL.WantReadError):
            self._socket.sendall(self.tls.bio_read(32768))


def _main(port: int, ca: str, count: int) -> None:
    raise_descriptor_limit()
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.load_verify_locations(ca)
    context.set_verify(SSL.VERIFY_PEER)
    held = [_Connection(context, port, None)]
    session = held[0].tls.get_session()
    held += [_Connection(context, port, session) for _ in range(100)]
    before = rss_bytes(os.getpid())
    held += [_Connection(context, port, session) for _ in range(count)]
    print((rss_bytes(os.getpid()) - before) / count)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
