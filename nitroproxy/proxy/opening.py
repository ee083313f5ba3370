"""How a client's connection begins where it is not HTTP: it has a destination before it has said anything.

To the engine it is then a CONNECT that its client did not have to send: dialled, limited, watched, recorded and drained
as any other. Nothing that the engine has to say can be said to such a client: a failure ends the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.address import IPv4Address, IPv6Address

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Fields, Limits, Request
from nitroproxy.http1.reader import RequestReader
from nitroproxy.preface.proxy_protocol import Header, HeaderError, HeaderReader, Peers
from nitroproxy.proxy.response import ResponseWriter
from nitroproxy.proxy.trace import REQUEST_ID
from nitroproxy.proxy.transport import StreamTransport


class ClientReader(Protocol):
    """Reads what a client asks for: see `nitroproxy.http1.reader.RequestReader`.

    :ivar label: what its requests are called in metrics and logs; empty: by their method.
    """

    label: bytes

    @property
    def buffered(self) -> int: ...
    @property
    def complete(self) -> bool: ...
    def limit(self, limits: Limits) -> None: ...
    def feed(self, data: bytes) -> None: ...
    def read_head(self) -> Request | None: ...
    def read_body(self) -> bytes: ...
    def next_message(self) -> None: ...
    def take_rest(self) -> bytes: ...


@dataclass(slots=True)
class Passage(Request):
    """The CONNECT that nobody sent.

    :ivar header: who the client is: as the PROXY header says, which is its sender's word, or as the socket does.
    """

    header: Header = field(default_factory=Header)


class PassageReader:
    """Reads nothing, or the header of the PROXY protocol, and then has a `Passage`.

    :param authority: ``host:port`` of where the connection leads; empty when the router knows.
    :param header: the client must begin with a header of the PROXY protocol.
    """

    label = b"TCP"
    #: There is no body.
    complete = False

    def __init__(self, transport: StreamTransport, authority: bytes, *, header: bool) -> None:
        self._transport = transport
        self._authority = authority
        self._header = HeaderReader()
        self._awaited = header
        self._begun = False

    @property
    def buffered(self) -> int:
        """Bytes that have not been handed out."""
        return self._header.buffered

    def limit(self, limits: Limits) -> None:
        """There are none but a header's own."""

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection."""
        self._header.feed(data)

    def read_head(self) -> Request | None:
        """The passage; None until the header has arrived, and once it has been given.

        :raises ProxyError: `Kind.MALFORMED_REQUEST` when what came is no header.
        """
        if self._begun:
            return None
        header: Header | None = Header(peers_of(self._transport))
        if self._awaited:
            try:
                header = self._header.read()
            except HeaderError as error:
                raise ProxyError(Kind.MALFORMED_REQUEST, f"no PROXY header: {error}") from error
        if header is None:
            return None
        self._begun = True
        identity = [(REQUEST_ID, header.unique_id)] if header.unique_id else []
        return Passage(b"CONNECT", self._authority, Fields(identity), header=header)

    def read_body(self) -> bytes:
        """There is none."""
        return b""

    def next_message(self) -> None:
        """There is none."""

    def take_rest(self) -> bytes:
        """The first bytes of the tunnel."""
        return self._header.take_rest()


def peers_of(transport: StreamTransport) -> Peers | None:
    """The two ends of a TCP connection; None for another's."""
    peer, own = transport.getPeer(), transport.getHost()
    if isinstance(peer, IPv4Address | IPv6Address) and isinstance(own, IPv4Address | IPv6Address):
        return Peers((peer.host, peer.port), (own.host, own.port))
    return None


class SilentWriter(ResponseWriter):
    """Writes nothing: what a client would be told of a failure is that its connection is reset."""

    silent = True

    def problem(self, error: ProxyError, request_complete: bool) -> None:
        """There is no word for it."""
        self.begun = self.close_after = True

    def connected(self) -> None:
        """The client never asked."""


#: How a listener's connections begin: given the transport, the limits of heads and the role's name, what reads and what
#: answers a connection.
Opening = Callable[[StreamTransport, Limits, str], tuple[ClientReader, ResponseWriter]]


def http(transport: StreamTransport, limits: Limits, hop: str) -> tuple[ClientReader, ResponseWriter]:
    """Connections that begin with an HTTP request: an `Opening`."""
    return RequestReader(limits), ResponseWriter(transport, hop)


def passage(authority: bytes = b"", *, header: bool = False) -> Opening:
    """Connections that lead to *authority* from their first byte; see `PassageReader`."""

    def opening(transport: StreamTransport, limits: Limits, hop: str) -> tuple[ClientReader, ResponseWriter]:
        return PassageReader(transport, authority, header=header), SilentWriter(transport, hop)

    return opening
