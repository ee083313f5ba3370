"""A name server for the applications of this machine, over UDP and TCP (RFC 1035), on sockets that are given to it.

`respond` is all of the protocol: from the bytes of a query to those of the response. Questions are read by
twisted.names; its servers are not used, for they take messages apart that are none of their business. What is no query
is dropped, or answered with the code that says why; nothing of it is logged. There is no EDNS (RFC 6891): a response
has no OPT, is never longer than 512 bytes and never cut off.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import DatagramProtocol, Factory, connectionDone
from twisted.logger import Logger
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from nitroproxy.proxy.deadlines import Deadline, Deadlines
from nitroproxy.telemetry.logs import printable
from nitroproxy.transparent.answers import Answer, Code, Outcome

_log: Final = Logger()

#: Seconds for which a resolver may keep an answer. The address stays the name's for longer.
TTL: Final = 60
#: Bytes of a query that are read.
MOST_BYTES: Final = 4096
#: Connections at a time, and seconds that one may be idle.
_MOST_CONNECTIONS: Final = 64
_IDLE_TIMEOUT: Final = 10.0
#: Names whose refusal is remembered as logged, and lines a second.
_REMEMBERED: Final = 4096
_LINES_A_SECOND: Final = 10

_IPV4: Final = socket.AF_INET
_HEADER: Final = struct.Struct("!6H")
_RECORD: Final = struct.Struct("!HHHIH")
#: Flags (RFC 1035 section 4.1.1).
_IS_RESPONSE: Final = 0x8000
_OPCODE: Final = 0x7800
_RECURSION_DESIRED: Final = 0x0100
_RECURSION_AVAILABLE: Final = 0x0080
#: A pointer to the question's name (RFC 1035 section 4.1.4).
_SAME_NAME: Final = 0xC000 | _HEADER.size

#: Answers a question: its name and type.
Answerer = Callable[[bytes, int], Answer]
#: Told what became of a question: its type, or 0 without one, its name and the answer.
OnAnswer = Callable[[int, bytes, Answer], object]


def respond(query: bytes, answer: Answerer, on_answer: OnAnswer) -> bytes | None:
    """The response to *query*; None when there is none to be sent."""
    if len(query) < _HEADER.size:
        on_answer(0, b"", _malformed(Code.FORMERR))
        return None
    identity, flags, questions, *_ = _HEADER.unpack_from(query)
    if flags & _IS_RESPONSE:
        on_answer(0, b"", _malformed(Code.FORMERR))
        return None
    name, kind, end, given = b"", 0, _HEADER.size, _malformed(Code.FORMERR)
    if flags & _OPCODE:
        given = _malformed(Code.NOTIMP)
    elif questions == 1:
        stream, question = BytesIO(query), dns.Query()
        stream.seek(end)
        try:
            question.decode(stream)
        except (EOFError, ValueError):
            pass
        else:
            name, kind, end = question.name.name, question.type, stream.tell()
            given = answer(name, kind) if question.cls == dns.IN else _malformed(Code.REFUSED)
    on_answer(kind, name, given)
    flags = _IS_RESPONSE | (flags & (_OPCODE | _RECURSION_DESIRED)) | _RECURSION_AVAILABLE | given.code
    has_question = int(end > _HEADER.size)
    head = _HEADER.pack(identity, flags, has_question, int(bool(given.packed)), 0, 0)
    # As it was asked: some resolvers look whether the name comes back in the same case.
    response = head + query[_HEADER.size : end]
    if given.packed:
        response += _RECORD.pack(_SAME_NAME, kind, dns.IN, TTL, len(given.packed)) + given.packed
    return response


def _malformed(code: Code) -> Answer:
    return Answer(code, Outcome.MALFORMED)


class Reports:
    """Logs why names have no address: each name once, as far as it is remembered, and so many a second.

    :param seconds: a clock's time.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._said: set[bytes] = set()
        self._second = 0
        self._lines = 0

    def __call__(self, name: bytes, answer: Answer) -> None:
        """Log *answer*'s reason, if it has one."""
        if not answer.detail or name in self._said:
            return
        second = int(self._seconds())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= _LINES_A_SECOND:
            return
        self._lines += 1
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said.add(name)
        shown = printable(name.decode("ascii", "backslashreplace"))
        fields = {"name": shown, "outcome": answer.outcome.value, "reason": printable(answer.detail)}
        if answer.code == Code.SERVFAIL:
            _log.error("no address for {name}: {reason}", event="name_failed", **fields)
        else:
            _log.info("no address for {name}: {reason}", event="name_refused", **fields)


class _Datagrams(DatagramProtocol):
    """Queries over UDP."""

    noisy = False

    def __init__(self, answer: Answerer, on_answer: OnAnswer) -> None:
        self._answer = answer
        self._on_answer = on_answer

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """See `DatagramProtocol`."""
        response = respond(datagram, self._answer, self._on_answer)
        if response is not None and self.transport is not None:
            self.transport.write(response, addr)


class _Stream(Int16StringReceiver):
    """Queries over one TCP connection. While responses wait to be read no more queries are."""

    def __init__(self, server: _Streams) -> None:
        self._server = server
        self._deadline: Deadline | None = None

    def connectionMade(self) -> None:
        self.transport.registerProducer(self.transport, True)  # type: ignore[union-attr]
        self._server.opened(self)
        self._wait()

    def _wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._server.deadlines.after(_IDLE_TIMEOUT, self.abort)

    def stringReceived(self, string: bytes) -> None:
        """See `Int16StringReceiver`."""
        self._wait()
        response = respond(string, self._server.answer, self._server.on_answer)
        if response is not None:
            self.sendString(response)

    def abort(self) -> None:
        """End the connection."""
        self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._server.closed(self)


class _Streams(Factory):
    """The connections; of too many the oldest ends."""

    noisy = False

    def __init__(self, answer: Answerer, on_answer: OnAnswer, deadlines: Deadlines) -> None:
        self.answer = answer
        self.on_answer = on_answer
        self.deadlines = deadlines
        #: In order of age.
        self.connections: dict[_Stream, None] = {}

    def buildProtocol(self, addr: object) -> _Stream:
        """See `Factory`."""
        return _Stream(self)

    def opened(self, connection: _Stream) -> None:
        """*connection* is one more."""
        self.connections[connection] = None
        if len(self.connections) > _MOST_CONNECTIONS:
            oldest = next(iter(self.connections))
            del self.connections[oldest]  # It ends a turn of the reactor later, and more may come within this one.
            oldest.abort()

    def closed(self, connection: _Stream) -> None:
        """*connection* has ended."""
        self.connections.pop(connection, None)


class NameServer:
    """Answers on a UDP and a listening TCP socket, IPv4: a `nitroproxy.daemon.place.Place`.

    :param udp: the descriptor of the first, which stays the caller's; *tcp* that of the second.
    :ivar name: what to call it in messages.
    """

    def __init__(
        self, reactor: Any, udp: int, tcp: int, answer: Answerer, on_answer: OnAnswer, deadlines: Deadlines
    ) -> None:
        self._reactor = reactor
        self._descriptors = udp, tcp
        self._datagrams = _Datagrams(answer, on_answer)
        self._streams = _Streams(answer, on_answer, deadlines)
        self._ports: list[Any] = []
        self.name = "DNS"

    def listen(self) -> None:
        """Answer from now on."""
        udp, tcp = self._descriptors
        for descriptor in self._descriptors:
            os.set_blocking(descriptor, False)  # Twisted takes it for granted.
        self._ports = [
            self._reactor.adoptDatagramPort(udp, _IPV4, self._datagrams, maxPacketSize=MOST_BYTES),
            self._reactor.adoptStreamPort(tcp, _IPV4, self._streams),
        ]
        host = self._ports[0].getHost()
        self.name = f"DNS {host.host}:{host.port}" if isinstance(host, IPv4Address) else self.name
        _log.info("answering questions about names at {place}", event="listening", place=self.name)

    async def stop(self, timeout: float) -> bool:
        """Stop: an answer takes no time, so nothing is under way."""
        ports, self._ports = self._ports, []
        for port in ports:
            await port.stopListening()
        self.abort()
        return True

    @property
    def accepting(self) -> bool:
        """Whether questions are answered."""
        return bool(self._ports)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._streams.connections)

    def abort(self) -> None:
        """End every connection now."""
        for connection in list(self._streams.connections):
            connection.abort()
