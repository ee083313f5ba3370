"""SOCKS 5 beside HTTP on one port, told apart by a connection's first byte: no HTTP request begins with 5.

To the engine a SOCKS client has sent a CONNECT; only what it is answered differs. What is read is in
`nitroproxy.preface.socks5`.
"""

from __future__ import annotations

from nitroproxy.errors import ProxyError
from nitroproxy.http1.messages import Fields, Limits, Request
from nitroproxy.http1.reader import RequestReader
from nitroproxy.preface.socks5 import SUCCEEDED, VERSION, Handshake, reply
from nitroproxy.proxy.opening import ClientReader
from nitroproxy.proxy.response import ResponseWriter
from nitroproxy.proxy.transport import StreamTransport


class EitherReader(RequestReader):
    """Reads HTTP requests, or the one request of a SOCKS client.

    :ivar socks: what a SOCKS client says; None as long as the client may be one of HTTP.
    """

    def __init__(self, transport: StreamTransport, limits: Limits) -> None:
        super().__init__(limits)
        self.socks: Handshake | None = None
        self._transport = transport
        self._fresh = True

    @property
    def buffered(self) -> int:
        """How many bytes were fed and not handed out yet; of a SOCKS client that has not sent its request, more than
        none: what it has said is the beginning of a head."""
        return super().buffered if self.socks is None else self.socks.buffered + (not self.socks.over)

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection."""
        if self._fresh:
            self._fresh = False
            if data[0] == VERSION:
                self.socks = Handshake()
                self.label = b"SOCKS5"
        if self.socks is None:
            super().feed(data)
        else:
            self.socks.feed(data)

    def read_head(self) -> Request | None:
        """The next request's head, or None until it has arrived whole. What a SOCKS client is to be told before its
        request has been sent then."""
        if self.socks is None:
            return super().read_head()
        try:
            destination = self.socks.read()
        finally:  # A request that is refused may have come with the greeting.
            if answer := self.socks.take_answer():
                self._transport.write(answer)
        return None if destination is None else Request(b"CONNECT", destination, Fields())

    def take_rest(self) -> bytes:
        """The first bytes of a tunnel."""
        return super().take_rest() if self.socks is None else self.socks.take_rest()


class EitherWriter(ResponseWriter):
    """Answers a client as it asked; *reader* knows how."""

    def __init__(self, transport: StreamTransport, hop: str, reader: EitherReader) -> None:
        super().__init__(transport, hop)
        self._reader = reader

    def problem(self, error: ProxyError, request_complete: bool) -> None:
        """Answer with the failure, of which SOCKS has nine."""
        if self._reader.socks is None:
            super().problem(error, request_complete)
            return
        self.begun = self.close_after = True
        self._transport.write(self._reader.socks.answer_to(error))

    def connected(self) -> None:
        """Answer that the tunnel begins here."""
        if self._reader.socks is None:
            super().connected()
        else:
            self.begun = True
            self._transport.write(reply(SUCCEEDED))


def http_or_socks(transport: StreamTransport, limits: Limits, hop: str) -> tuple[ClientReader, ResponseWriter]:
    """Connections that begin with an HTTP request or with SOCKS: a `nitroproxy.proxy.opening.Opening`."""
    reader = EitherReader(transport, limits)
    return reader, EitherWriter(transport, hop, reader)
