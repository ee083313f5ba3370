"""Random and mutated bytes for everything that parses: the HTTP readers, the relay's preamble, the configuration, what
KMS encrypts, the name server's questions, PROXY headers and SOCKS; and for the page that gives credentials to who has
the token.

`python -m tests.fuzz [SECONDS] [--seed N]` (``scripts/dev.sh fuzz``) goes on until the time is over or something is
found; a finding is printed with the bytes and the seed that lead to it. Besides never failing in any way but its own,
a reader must read the same however the bytes were cut, and what it takes for a request another implementation (h11)
must take for the same request.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import h11
from twisted.internet.testing import MemoryReactorClock
from twisted.web.resource import Resource
from twisted.web.server import Site

from nitroproxy.config.load import ConfigurationError, load
from nitroproxy.enclave.credentials import CredentialsPage, CredentialsRequests
from nitroproxy.errors import ProxyError
from nitroproxy.host.dial import Resolver
from nitroproxy.host.egress import EgressRouter
from nitroproxy.http1.messages import Limits, Request, Response
from nitroproxy.http1.reader import RequestReader, ResponseReader
from nitroproxy.kms.envelope import NotOpened
from nitroproxy.kms.recipient import RecipientKey
from nitroproxy.policy import AddressGuard, Policy
from nitroproxy.preface.proxy_protocol import Header, HeaderError, HeaderReader, Peers
from nitroproxy.preface.socks5 import Handshake
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.route import Local
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.telemetry.health import LocalRoot
from nitroproxy.transparent.answers import Answer, Answers
from nitroproxy.transparent.dns_server import respond
from nitroproxy.transparent.names import NameTable
from tests.kms import OWN, REAL, own_key, stored
from tests.wire import OneHop, Wire

_VECTORS: Final = Path(__file__).parent / "vectors"
_CONFIGURATIONS: Final = Path(__file__).parent.parent / "etc"
#: The bytes and words that mutations insert: readers differ on them.
_WORDS: Final = (
    *(bytes([byte]) for byte in b'\r\n\t\0 :;,="\\%#?@/[]\x7f\x80\xff0aZ'),
    *(
        b"\r\n",
        b"\n\n",
        b"\r\n\r\n",
        b" \r\n",
        b"0\r\n\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ),
    *(b"Host: b\r\n", b"Connection: close\r\n", b"HTTP/1.0", b"HTTP/1.1", b"chunked", b"18446744073709551616", b"-1"),
    *(b"169.254.169.254", b"127.1", b"0x7f.1", b"[::1]", b"[::ffff:10.0.0.1]", b"localhost", b"https://", b"CONNECT "),
)
#: Allowed around a chunk's extensions (RFC 9112 section 7.1.1); h11 refuses it.
_BAD_WHITESPACE: Final = re.compile(rb"[ \t][;=]|[;=][ \t]")


class Finding(AssertionError):
    """A result that must not happen."""


def seeds(*names: str) -> list[bytes]:
    """The messages of these vector files."""
    return [
        case["bytes"].encode("latin-1")
        for name in names
        for case in json.loads((_VECTORS / f"{name}.json").read_text("ascii"))
    ]


def mutate(chance: random.Random, corpus: list[bytes]) -> bytes:
    """A message of *corpus* with random changes."""
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at:at] = chance.choice(_WORDS)
            case 1:
                del data[at : at + chance.choice((1, 1, 2, 10))]
            case 2:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 3:
                data[at:at] = data[chance.randrange(len(data) + 1) :][: chance.randrange(40)]
            case _:
                other = chance.choice(corpus)
                data[at:] = other[chance.randrange(len(other) + 1) :]
    return bytes(data)


def cuts(chance: random.Random, data: bytes) -> Iterator[list[bytes]]:
    """*data* whole, byte by byte, and cut at random."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    edges = sorted({0, len(data), *(chance.randrange(len(data) + 1) for _ in range(4))})
    yield [data[a:b] for a, b in itertools.pairwise(edges)]


def requests_in(pieces: list[bytes]) -> list[Any]:
    """Every request that is read, with its body; at the end the failure's status, if it failed: then how much of the
    last body was read before depends on the cut, and it is left out."""
    reader = RequestReader(Limits())
    found: list[Any] = []
    current: Request | None = None
    try:
        for piece in pieces:
            reader.feed(piece)
            while True:
                if current is None:
                    current = reader.read_head()
                    if current is None:
                        break
                    found.append([current.method, current.target, tuple(current.fields.in_order), b""])
                found[-1][3] += reader.read_body()
                if not reader.complete:
                    break
                current = None
                reader.next_message()
    except ProxyError as error:
        if found:
            found[-1][-1] = b""
        found.append(error.kind.status)
    return found


def response_in(pieces: list[bytes]) -> list[Any]:
    """The response that is read, with its body; at the end the failure's status, if it failed, and then no body."""
    reader = ResponseReader(Limits())
    response: Response | None = None
    found: list[Any] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            if response is None:
                response = reader.read_head(b"GET")
                if response is not None:
                    found.append([response.status, tuple(response.fields.in_order), b""])
            if response is not None and response.status >= 200:
                found[-1][2] += reader.read_body()
    except ProxyError as error:
        if found:
            found[-1][-1] = b""
        found.append(error.kind.status)
    return found


def agrees(mine: list[Any], data: bytes) -> None:
    """What h11 makes of the first request must be the same.

    :raises Finding: if it is not.
    """
    if not mine or not isinstance(mine[0], list):
        return
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data.lstrip(b"\r\n"))  # Empty lines before a request are ignored (RFC 9112 section 2.2).
    method, target, headers, body = mine[0]
    refused = len(mine) > 1 and not isinstance(mine[1], list)  # After the head, where h11 may be laxer.
    try:
        request = connection.next_event()
        theirs = b""
        while isinstance(event := connection.next_event(), h11.Data):
            theirs += event.data
    except h11.RemoteProtocolError as error:
        if refused or _BAD_WHITESPACE.search(data):
            return
        raise Finding(f"h11 refuses it: {error}") from error
    if not isinstance(request, h11.Request):
        raise Finding("h11 does not see a request")
    seen, theirs_seen = (
        [(name.lower(), value.lower()) for name, value in fields] for fields in (headers, request.headers)
    )
    if (request.method, request.target, theirs_seen) != (method, target, seen):
        raise Finding(f"h11 reads {request!r}")
    if refused:
        return
    complete = isinstance(event, h11.EndOfMessage)
    if theirs != body if complete else not (theirs.startswith(body) or body.startswith(theirs)):
        raise Finding(f"h11 reads the body {theirs!r}, not {body!r}")


def fuzz_requests(chance: random.Random, data: bytes) -> None:
    """The request reader."""
    outcomes = [requests_in(pieces) for pieces in cuts(chance, data)]
    if any(outcome != outcomes[0] for outcome in outcomes):
        raise Finding(f"it depends on the cut: {outcomes}")
    agrees(outcomes[0], data)


def fuzz_responses(chance: random.Random, data: bytes) -> None:
    """The response reader."""
    outcomes = [response_in(pieces) for pieces in cuts(chance, data)]
    if any(outcome != outcomes[0] for outcome in outcomes):
        raise Finding(f"it depends on the cut: {outcomes}")


def fuzz_relay(chance: random.Random, data: bytes) -> None:
    """The relay's preamble: whatever it receives, it dials nothing that policy and guard do not allow."""
    reactor: Any = MemoryReactorClock()
    deadlines = Deadlines(reactor)
    names = {"good.example": "93.184.215.14", "inner.example": "10.0.0.1"}

    async def lookup(host: str) -> list[str]:
        return [names.get(host, "127.0.0.1")]

    resolver = Resolver(lookup, AddressGuard([], frozenset), deadlines, 5.0)
    policy = Policy(["*:443"], ["denied.example:*"])
    router = EgressRouter(reactor, resolver, policy, deadlines, 5.0, Site(Resource()))
    factory = DownstreamFactory("nitroproxy-fuzz", router, ListenerSettings(), deadlines)
    for pieces in cuts(chance, data):
        protocol = factory.buildProtocol(None)
        assert protocol is not None
        wire = Wire(protocol)
        for piece in pieces:
            if wire.closed:
                break
            wire.receive(piece)
        reactor.advance(60)
        wire.settle()
        wire.lose()
        for host, port, *_ in reactor.tcpClients:
            if (host, port) != ("93.184.215.14", 443) and AddressGuard([], frozenset).reason_against(host) is not None:
                raise Finding(f"dialled {host}:{port}")
            if port != 443:
                raise Finding(f"dialled port {port}")
    if factory.connections:
        raise Finding("a connection was left")


def fuzz_configuration(chance: random.Random, data: bytes) -> None:
    """A configuration file."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            load(file.name, environ={})
        except ConfigurationError as error:
            if not error.problems:
                raise Finding("refused without a reason") from error


def fuzz_kms(chance: random.Random, data: bytes) -> None:
    """An envelope of KMS: a secret, or the one failure."""
    with contextlib.suppress(NotOpened):
        _KEY.open(data)


def fuzz_credentials(chance: random.Random, data: bytes) -> None:
    """The credentials page: whatever it receives, without the token it asks the host for nothing."""
    relay, requests = OneHop(), CredentialsRequests()
    root = LocalRoot("nitroproxy-fuzz")
    token_sha256 = sha256(b"a token that is nowhere else").hexdigest()
    root.putChild(b"credentials", CredentialsPage(relay.pool, relay.deadlines, token_sha256, requests))
    hop = OneHop(lambda request: Local(Site(root)))
    for pieces in cuts(chance, data):
        wire = hop.client()
        for piece in pieces:
            if wire.closed:
                break
            wire.receive(piece)
        hop.pass_time(1.0)
        wire.settle()
        wire.lose()
        if relay.endpoint.waiting:
            raise Finding("it asks the host")


_KEY: Final = RecipientKey(own_key())
_TOKEN: Final = b"Authorization: 4a3e0ab4a0e3ab4c49c3a9ee0ea4c8b1\r\n"
_CREDENTIALS_SEEDS: Final = [
    b"GET /credentials HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n%b\r\n" % fields
    for fields in (b"", _TOKEN, _TOKEN * 2, b"Authorization:\r\n", b"Via: 1.1 x\r\n" + _TOKEN, b"Origin: null\r\n")
]


def fuzz_names(chance: random.Random, data: bytes) -> None:
    """A message to the name server of applications: answered, with its own question and no denied name, or dropped."""
    with tempfile.TemporaryDirectory() as directory:
        table = NameTable(f"{directory}/names")
        answers = Answers(table, Policy(["*.example:443"], ["denied.example:*"]), lambda: "box")
        seen: list[Answer] = []
        response = respond(data, answers.answer, lambda kind, name, answer: seen.append(answer))
        names = [table.name_of(number) for number in range(table.count())]
        table.close()
    if len(seen) != 1:
        raise Finding(f"{len(seen)} answers to one message")
    if any(not str(name).endswith(".example") or name == "denied.example" for name in names):
        raise Finding(f"names with an address: {names}")
    if response is None:
        return
    if response[:2] != data[:2] or not response[2] & 0x80 or len(response) > 512:
        raise Finding("the response is none to this message")
    if response[3] & 0xF == 0 and response[5] != 1:
        raise Finding("an answer without its question")


def fuzz_prefaces(chance: random.Random, data: bytes) -> None:
    """What stands before the bytes of a connection that is not HTTP, a PROXY header or SOCKS: read the same however it
    was cut, with the same rest, or refused."""
    for make in (HeaderReader, Handshake):
        outcomes = [_preface(make, pieces) for pieces in cuts(chance, data)]
        if any(outcome != outcomes[0] for outcome in outcomes):
            raise Finding(f"{make.__name__} depends on how the bytes were cut: {outcomes}")


def _preface(make: Callable[[], Any], pieces: list[bytes]) -> Any:
    reader, found = make(), None
    for piece in pieces:
        reader.feed(piece)
        if found is None:
            try:
                found = reader.read()
            except (HeaderError, ProxyError):
                return "refused"
    return None if found is None else (found, reader.take_rest())


_PREFACE_SEEDS: Final = [
    b"PROXY TCP4 192.0.2.1 198.51.100.2 4321 443\r\nrest",
    b"PROXY TCP6 2001:db8::1 2001:db8::2 4321 443\r\n",
    b"PROXY UNKNOWN x\r\n",
    Header(Peers(("192.0.2.1", 4321), ("198.51.100.2", 443)), b"an-id").to_bytes() + b"rest",
    Header(Peers(("2001:db8::1", 4321), ("2001:db8::2", 443))).to_bytes(),
    Header(None, b"an-id").to_bytes(),
    b"\x05\x01\x00\x05\x01\x00\x03\x0csite.example\x01\xbbrest",
    b"\x05\x02\x00\x02\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb",
    b"\x05\x01\x00\x05\x01\x00\x04" + bytes(15) + b"\x01\x01\xbb",
]


def _query(name: bytes, kind: int, rest: bytes = b"") -> bytes:
    labels = b"".join(bytes([len(label)]) + label for label in name.split(b"."))
    return b"\x12\x34\x01\0\0\1\0\0\0\0\0" + bytes([bool(rest)]) + labels + b"\0\0%c\0\1" % kind + rest


_NAME_SEEDS: Final = [
    *(_query(b"a.example", kind) for kind in (1, 28, 65, 255)),
    *(_query(name, 1) for name in (b"denied.example", b"localhost", b"BOX", b"x.test", b"xn--bcher-kva.example")),
    _query(b".".join([b"x" * 63] * 3 + [b"y" * 50, b"example"]), 1),
    _query(b"a.example", 1, b"\0\0\x29\x04\xd0\0\0\0\0\0\0"),
]

_RELAY_SEEDS: Final = [
    b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority)
    for authority in (
        *(b"good.example:443", b"denied.example:443", b"inner.example:443", b"good.example:22", b"10.0.0.1:443"),
        *(b"93.184.215.14:443", b"[::ffff:10.0.0.1]:443", b"[2606:4700::1]:443", b"127.1:443", b"0x7f.1:443"),
    )
]

#: The targets: name, function, and the inputs from which mutations start.
TARGETS: Final[dict[str, tuple[Callable[[random.Random, bytes], None], list[bytes]]]] = {
    "requests": (fuzz_requests, seeds("requests_accepted", "requests_refused")),
    "responses": (fuzz_responses, seeds("responses")),
    "relay": (fuzz_relay, [*_RELAY_SEEDS, *seeds("requests_refused")]),
    "kms": (fuzz_kms, [stored(name) for name in (*REAL, OWN)]),
    "credentials": (fuzz_credentials, [*_CREDENTIALS_SEEDS, *seeds("requests_refused")]),
    "names": (fuzz_names, _NAME_SEEDS),
    "prefaces": (fuzz_prefaces, _PREFACE_SEEDS),
    "configuration": (fuzz_configuration, [path.read_bytes() for path in sorted(_CONFIGURATIONS.glob("*.json"))]),
}


def run(seconds: float, seed: int) -> dict[str, int]:
    """Fuzz every target for its share of *seconds*; returns the number of inputs of each.

    :raises Finding: at the first finding, with a note about the input.
    """
    counts: dict[str, int] = {}
    for name, (examine, corpus) in TARGETS.items():
        chance = random.Random(f"{seed}/{name}")
        until = time.monotonic() + seconds / len(TARGETS)
        counts[name] = 0
        while time.monotonic() < until or not counts[name]:
            data = mutate(chance, corpus)
            try:
                examine(chance, data)
            except Exception as error:
                error.add_note(f"{name}, seed {seed}, input {counts[name]}: {data!r}")
                raise
            counts[name] += 1
    return counts


def main() -> int:
    """Fuzz; the exit status is 1 after a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    for name, count in run(arguments.seconds, arguments.seed).items():
        print(f"{name}: {count} inputs, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
