"""Names looked up by c-ares: against a name server of the test's own, which may lie (K2, S12)."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pycares
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.trial.unittest import TestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host import dns
from nitroproxy.host.dns import MOST_ADDRESSES, Names, look_up
from nitroproxy.host.lookup import Lookups
from tests.dnsserver import (
    AAAA,
    CNAME,
    REFUSED,
    SERVFAIL,
    TRUNCATED,
    A,
    Answer,
    NameServer,
    Question,
    address,
    encode_name,
    from_elsewhere,
    message,
    over_tcp,
    record,
    zone,
)

ZONE = zone({"both.example": ["192.0.2.1", "192.0.2.2", "2001:db8::1"], "four.example": ["192.0.2.4"]})


def silent(question: Question) -> Sequence[bytes]:
    """Answer nothing."""
    return []


#: Heed CARES_HOSTS, the path of another hosts file (ares.h).
ARES_AI_ENVHOSTS = 1 << 8


class KeepingFFI:
    """pycares' FFI, which keeps all that it has made."""

    def __init__(self, ffi: Any) -> None:
        self._ffi = ffi
        self._kept: list[object] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ffi, name)

    def new(self, *arguments: Any) -> Any:
        """Make it, and keep it."""
        made = self._ffi.new(*arguments)
        self._kept.append(made)
        return made


class Case(TestCase):
    """A name server, and names looked up by way of a resolv.conf that leads to it."""

    def setUp(self) -> None:
        self.reactor: Any = global_reactor
        self.server = NameServer(self.reactor, ZONE)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.server.stop()))
        self.resolv_conf = Path(self.mktemp())
        self.hosts = Path(self.mktemp())
        self.hosts.write_text("192.0.2.80 alias.example short # a comment\n2001:db8::80 alias.example\n")
        self.environment(CARES_HOSTS=str(self.hosts))
        self.patch(dns, "_FLAGS", dns._FLAGS | ARES_AI_ENVHOSTS)
        self.configure()
        self.names = Names(self.reactor, str(self.resolv_conf))
        # pycares 5.2 frees the path before c-ares reads it (the daemon gives none).
        self.patch(pycares, "_ffi", KeepingFFI(pycares._ffi))  # type: ignore[attr-defined]

    def environment(self, **variables: str) -> None:
        for name, value in variables.items():
            before = os.environ.get(name)
            os.environ[name] = value
            self.addCleanup(os.environ.pop, name, None)
            if before is not None:
                self.addCleanup(os.environ.__setitem__, name, before)

    def configure(self, *lines: str, servers: Sequence[int] | None = None) -> None:
        ports = [self.server.port] if servers is None else servers
        named = [f"nameserver 127.0.0.1:{port}" for port in ports]
        self.resolv_conf.write_text("\n".join([*named, *lines, ""]))

    async def trouble(self, host: str, answer: Answer) -> ProxyError:
        self.server.answer = answer
        try:
            await self.names.look_up(host)
        except ProxyError as error:
            return error
        self.fail("an answer was taken")


class AnswerTests(Case):
    """Servers that answer as they should."""

    async def test_families(self) -> None:
        """Both families are asked for at once, IPv6 comes first; a host may have only one of them."""
        self.assertEqual(await self.names.look_up("both.example"), ["2001:db8::1", "192.0.2.1", "192.0.2.2"])
        self.assertEqual({question.type for question in self.server.asked}, {A, AAAA})
        self.assertEqual(await self.names.look_up("four.example"), ["192.0.2.4"])
        self.server.answer = zone({"six.example": ["2001:db8::6"]})
        self.assertEqual(await self.names.look_up("six.example"), ["2001:db8::6"])

    async def test_nothing(self) -> None:
        """A name that does not exist, or has no address, is the name's failure and none of the resolver's."""
        error = await self.assertFailure(self.names.look_up("none.example"), DNSLookupError)
        self.assertIn("no such name", str(error))
        self.server.answer = zone({"empty.example": []})
        error = await self.assertFailure(self.names.look_up("empty.example"), DNSLookupError)
        self.assertIn("no address", str(error))

    async def test_aliases(self) -> None:
        """A chain of CNAMEs leads to the addresses at its end."""

        def answer(question: Question) -> Sequence[bytes]:
            name = encode_name("two.example")
            records = [record(CNAME, encode_name("one.example")), record(CNAME, name, encode_name("one.example"))]
            return [message(question, *records, *([address("192.0.2.9", name)] if question.type == A else []))]

        self.server.answer = answer
        self.assertEqual(await self.names.look_up("www.example"), ["192.0.2.9"])

    async def test_many(self) -> None:
        """Of an answer with more addresses than are used the first are taken, so that checking them is bounded."""
        self.server.answer = zone({"many.example": [f"192.0.2.{number}" for number in range(200)]})
        found = await self.names.look_up("many.example")
        self.assertEqual(found, [f"192.0.2.{number}" for number in range(MOST_ADDRESSES)])

    async def test_truncated(self) -> None:
        """An answer that was cut off is asked for again over TCP, and may be of 64 KiB there."""
        texts = [f"192.0.{number >> 8}.{number & 255}" for number in range(4000)]

        def answer(question: Question) -> Sequence[bytes]:
            if not question.tcp:
                return [message(question, flags=TRUNCATED)]
            wanted = map(address, texts) if question.type == A else []
            return [over_tcp(message(question, *wanted))]

        self.server.answer = answer
        self.assertEqual(len(await self.names.look_up("large.example")), MOST_ADDRESSES)
        self.assertTrue(any(question.tcp for question in self.server.asked))


class ConfigurationTests(Case):
    """What resolv.conf and the hosts file say."""

    async def test_hosts(self) -> None:
        """The hosts file comes before the name servers, counts aliases and both families, and is read again when it
        changes; ``localhost`` is always this machine."""
        self.assertEqual(await self.names.look_up("alias.example"), ["2001:db8::80", "192.0.2.80"])
        self.assertEqual(await self.names.look_up("SHORT"), ["2001:db8::80", "192.0.2.80"])
        self.assertIn("127.0.0.1", await self.names.look_up("localhost"))
        self.assertEqual(self.server.asked, [])
        self.hosts.write_text("192.0.2.81 other.example\n")
        self.assertEqual(await self.names.look_up("other.example"), ["192.0.2.81"])
        self.hosts.unlink()
        self.assertEqual(await self.names.look_up("four.example"), ["192.0.2.4"])

    async def test_search(self) -> None:
        """A single label is completed by the search list in its order; a name with dots is tried as it is first, and
        ``ndots`` says how many it takes."""
        self.configure("search a.test b.test", "options ndots:2")
        self.server.answer = zone({"web.b.test": ["192.0.2.5"], "x.y.a.test": ["192.0.2.6"], "x.y.z": ["192.0.2.7"]})
        self.assertEqual(await self.names.look_up("web"), ["192.0.2.5"])
        self.assertEqual(await self.names.look_up("x.y"), ["192.0.2.6"])
        self.server.asked.clear()
        self.assertEqual(await self.names.look_up("x.y.z"), ["192.0.2.7"])
        self.assertEqual({question.name for question in self.server.asked}, {"x.y.z"})

    async def test_changed(self) -> None:
        """A resolv.conf that was changed, or has come back, counts from the next lookup on."""
        self.configure(servers=[self.closed_port()])
        error = await self.trouble("four.example", ZONE)
        self.assertIs(error.kind, Kind.DNS_ERROR)
        self.assertIn("could not be reached", error.detail)
        self.configure()
        self.assertEqual(await self.names.look_up("four.example"), ["192.0.2.4"])

    def closed_port(self) -> int:
        """A UDP port that nobody listens on: that of a client."""
        import socket

        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(one.close)
        one.bind(("127.0.0.1", 0))
        one.connect(("127.0.0.1", one.getsockname()[1]))
        port: int = one.getsockname()[1]
        return port

    async def test_next_server(self) -> None:
        """A server that fails, refuses or is not there hands over to the next."""
        other = NameServer(self.reactor, ZONE)
        self.addCleanup(lambda: Deferred.fromCoroutine(other.stop()))
        for code in (SERVFAIL, REFUSED):
            self.server.answer = lambda question, code=code: [message(question, code=code)]  # type: ignore[misc]
            self.configure(servers=[self.server.port, other.port])
            self.assertEqual(await self.names.look_up("four.example"), ["192.0.2.4"])
        self.configure(servers=[self.closed_port(), other.port])
        self.assertEqual(await self.names.look_up("four.example"), ["192.0.2.4"])


class TroubleTests(Case):
    """Servers that fail, and what is no answer at all."""

    async def test_failures(self) -> None:
        """What the servers say instead of an answer is told, and is trouble of the resolver's."""
        for code, word in ((SERVFAIL, "SERVFAIL"), (REFUSED, "REFUSED")):
            error = await self.trouble(
                "a.example",
                lambda question, code=code: [message(question, code=code)],  # type: ignore[misc]
            )
            self.assertIs(error.kind, Kind.DNS_ERROR)
            self.assertIn(word, error.detail)

    async def test_no_answer(self) -> None:
        """Servers that stay silent through resolv.conf's attempts are a timeout."""
        self.configure("options timeout:1 attempts:1")
        error = await self.trouble("a.example", silent)
        self.assertIs(error.kind, Kind.DNS_TIMEOUT)
        self.assertIn("no name server answered", error.detail)

    async def test_malformed(self) -> None:
        """Lengths that lie, loops, counts of records that are not there and fragments of a message give no address."""
        loop = b"\xc0\x0c"

        def broken(question: Question) -> Sequence[Sequence[bytes]]:
            whole = message(question, address("192.0.2.66"))
            return [
                [message(question, record(A, b"\xc0\x00\x02\x42", length=400))],
                [message(question, record(A, b"\xc0\x00", length=2))],
                [message(question, record(CNAME, loop, struct.pack("!H", 0xC000 | 12 + len(question.raw))))],
                [message(question, record(A, b"\xc0\x00\x02\x42", b"\xff\xff"))],
                [message(question, address("192.0.2.66"), count=9)],
                [whole[:-1]],
                [whole[:20]],
            ]

        self.configure("options timeout:1 attempts:1")
        question = Question(1, "a.example", A, encode_name("a.example") + struct.pack("!HH", A, 1), False)
        for number in range(len(broken(question))):
            self.server.asked.clear()
            error = await self.trouble("a.example", lambda question, number=number: broken(question)[number])  # type: ignore[misc]
            self.assertIn(error.kind, (Kind.DNS_ERROR, Kind.DNS_TIMEOUT), number)

    async def test_tcp_that_breaks(self) -> None:
        """An answer over TCP that ends early, or whose length is a lie, gives no address."""
        for lie in (lambda whole: [whole[:30], b""], lambda whole: [b"\0\x05" + whole[2:], b""], lambda whole: [b""]):

            def answer(question: Question, lie: Any = lie) -> Sequence[bytes]:
                if not question.tcp:
                    return [message(question, flags=TRUNCATED)]
                broken: Sequence[bytes] = lie(over_tcp(message(question, address("192.0.2.66"))))
                return broken

            self.configure("options timeout:1 attempts:1")
            await self.trouble("a.example", answer)

    async def test_not_ours(self) -> None:
        """What answers another question, has another id or comes from another socket is passed over for the answer."""

        def answer(question: Question) -> Sequence[bytes]:
            lie = address("192.0.2.66" if question.type == A else "2001:db8::66")
            other = Question(
                question.id, "b.example", question.type, encode_name("b.example") + question.raw[-4:], False
            )
            from_elsewhere(message(question, lie), self.server.sources[-1])
            return [
                message(question, lie, id=question.id ^ 1),
                message(other, lie),
                b"",
                *ZONE(question),
            ]

        self.server.answer = answer
        self.assertEqual(await self.names.look_up("both.example"), ["2001:db8::1", "192.0.2.1", "192.0.2.2"])

    async def test_ports(self) -> None:
        """Each lookup is asked from a fresh port: who cannot see the questions has to guess it."""
        for _ in range(8):
            await self.names.look_up("four.example")
        self.assertGreater(len(set(self.server.sources)), 4)


class CancelTests(Case):
    """Lookups that are given up."""

    async def test_cancelled(self) -> None:
        """A lookup that is cancelled ends at once and leaves no socket behind, over UDP and over TCP."""
        for over in (silent, lambda question: [] if question.tcp else [message(question, flags=TRUNCATED)]):
            self.server.answer = over
            self.server.asked.clear()
            before = descriptors()
            asked: Deferred[None] = Deferred()
            looking = self.names.look_up("slow.example")

            def look(over: Any = over, asked: Deferred[None] = asked) -> None:
                if (over is silent or self.server.asked[-1].tcp) and not asked.called:
                    asked.callback(None)

            self.server.when_asked(look)
            await asked
            looking.cancel()
            await self.assertFailure(looking, CancelledError)
            self.assertLessEqual(descriptors() - before, 2, "the server's own ends of TCP connections")
            self.assertEqual([one for one in self.reactor.getReaders() if "host.dns" in type(one).__module__], [])

    async def test_many_slow(self) -> None:
        """Many names that get no answer, of one client or of many, keep no other name waiting (K2)."""
        self.server.answer = lambda question: [] if "slow" in question.name else ZONE(question)
        lookups = Lookups(self.names.look_up)
        slow = [lookups(f"slow{number}.example") for number in range(100)]
        self.assertEqual(await lookups("four.example"), ["192.0.2.4"])
        for looking in slow:
            looking.cancel()
            await self.assertFailure(looking, CancelledError)


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


class SystemTests(TestCase):
    """As this machine is configured."""

    async def test_localhost(self) -> None:
        """The system's own hosts file is read, and no flag is needed for it."""
        self.assertIn("127.0.0.1", await Names(global_reactor).look_up("localhost"))
        self.assertIn("127.0.0.1", look_up("localhost"))

    async def test_onion(self) -> None:
        """Tor's names are not asked for (RFC 7686)."""
        await self.assertFailure(Names(global_reactor).look_up("a.onion"), DNSLookupError)
        self.assertRaises(DNSLookupError, look_up, "a.onion")
