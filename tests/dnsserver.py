"""A name server on loopback that answers what the test says: whole truths, nonsense and lies."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol, connectionDone
from twisted.python.failure import Failure

A, CNAME, AAAA = 1, 5, 28
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, REFUSED = 0, 1, 2, 3, 5
TRUNCATED = 0x0200


@dataclass(frozen=True)
class Question:
    """What was asked.

    :ivar name: without the dot at the end, in lower case.
    :ivar raw: the question section as it came.
    """

    id: int
    name: str
    type: int
    raw: bytes
    tcp: bool


#: The datagrams, or messages over TCP, that answer a question.
Answer = Callable[[Question], Sequence[bytes]]


def encode_name(name: str) -> bytes:
    """A name as DNS writes it."""
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split(".")) + b"\0"


def record(kind: int, data: bytes, name: bytes = b"\xc0\x0c", length: int | None = None) -> bytes:
    """A resource record, of the name that was asked for unless *name* says otherwise."""
    return name + struct.pack("!HHIH", kind, 1, 60, len(data) if length is None else length) + data


def address(text: str, name: bytes = b"\xc0\x0c") -> bytes:
    """A record of an address."""
    packed = ip_address(text).packed
    return record(A if len(packed) == 4 else AAAA, packed, name)


def message(
    question: Question, *records: bytes, code: int = NOERROR, flags: int = 0, id: int | None = None, count: int = -1
) -> bytes:
    """A response; *id* and *count* (of its answers) may be lies."""
    number = question.id if id is None else id
    counts = (1, len(records) if count < 0 else count, 0, 0)
    return struct.pack("!HH4H", number, 0x8180 | flags | code, *counts) + question.raw + b"".join(records)


def zone(addresses: dict[str, Sequence[str]]) -> Answer:
    """Answers by the truth: these names have these addresses, and no other exists."""

    def answer(question: Question) -> Sequence[bytes]:
        if question.name not in addresses:
            return [message(question, code=NXDOMAIN)]
        family = 4 if question.type == A else 6
        wanted = [text for text in addresses[question.name] if ip_address(text).version == family]
        return [message(question, *map(address, wanted))]

    return answer


def read_question(data: bytes, tcp: bool) -> Question:
    """The question in a query."""
    number = struct.unpack_from("!H", data)[0]
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode("ascii").lower())
        at += 1 + data[at]
    kind = struct.unpack_from("!H", data, at + 1)[0]
    return Question(number, ".".join(labels), kind, data[12 : at + 5], tcp)


class NameServer:
    """Listens on UDP and TCP, on the same free port of loopback.

    :ivar answer: may be replaced at any time.
    :ivar asked: every question so far.
    :ivar sources: the ports that they came from.
    """

    def __init__(self, reactor: Any, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Question] = []
        self.sources: list[int] = []
        self._on_question: Callable[[], object] = lambda: None
        while True:
            self._udp = reactor.listenUDP(0, _Datagrams(self), interface="127.0.0.1", maxPacketSize=65535)
            self.port: int = self._udp.getHost().port
            try:
                self._tcp = reactor.listenTCP(self.port, _Streams(self), interface="127.0.0.1")
            except CannotListenError:
                self._udp.stopListening()
                continue
            return

    def answers(self, data: bytes, tcp: bool, port: int) -> Sequence[bytes]:
        """What to send to a query."""
        question = read_question(data, tcp)
        self.asked.append(question)
        self.sources.append(port)
        self._on_question()
        return self.answer(question)

    def when_asked(self, call: Callable[[], object]) -> None:
        """Have *call* called at each question from now on."""
        self._on_question = call

    async def stop(self) -> None:
        """Listen no more."""
        await self._udp.stopListening()
        await self._tcp.stopListening()


class _Datagrams(DatagramProtocol):
    noisy = False

    def __init__(self, server: NameServer) -> None:
        self._server = server

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        for answer in self._server.answers(datagram, False, addr[1]):
            self.transport.write(answer, addr)  # type: ignore[union-attr]


class _Stream(Protocol):
    """Takes one query; an answer that is empty ends the connection."""

    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if len(self._data) < 2 or len(self._data) < 2 + struct.unpack_from("!H", self._data)[0]:
            return
        query, self._data = self._data[2:], b""
        transport: Any = self.transport
        for answer in self._server.answers(query, True, transport.getPeer().port):
            transport.write(answer)
            if not answer:
                transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._data = b""


class _Streams(Factory):
    noisy = False

    def __init__(self, server: NameServer) -> None:
        self._server = server

    def buildProtocol(self, addr: Any) -> Protocol:
        return _Stream(self._server)


def over_tcp(answer: bytes) -> bytes:
    """A message as TCP carries it (RFC 1035 section 4.2.2)."""
    return struct.pack("!H", len(answer)) + answer


def from_elsewhere(answer: bytes, port: int) -> None:
    """Send a datagram to *port* from a socket that was not asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(answer, ("127.0.0.1", port))
