"""A matrix over two hops: hostile answers of destinations, and clients that leave at any moment (K1, K2). In all cases
these hold: what one client does never reaches a destination, a client or a log as another's; a client that has left
holds nothing on any hop; and the hops' accounts agree."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.proxy import downstream, tunnel
from tests.hops import TwoHops
from tests.wire import Wire

EVIL = b"GET /https://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
BANK = b"GET /https://bank.example/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: secret\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

#: Answers of a destination to a plain GET. None may take a client out of HTTP, or out of step.
ANSWERS = (
    OK,
    b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: ,\r\n\r\nraw",
    b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: , ,\r\nUpgrade: \t,\r\n\r\nraw",
    b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nraw",
    b"HTTP/1.1 101 X\r\n\r\n" + OK,
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    b"HTTP/1.1 103 Early Hints\r\nUpgrade: x\r\n\r\n" + OK,
    b"HTTP/1.1 199 X\r\nContent-Length: 5\r\n\r\n" + OK,
    b"HTTP/1.1 103 X\r\n\r\n" * 8 + OK,
    b"HTTP/1.1 103 X\r\n\r\n" * 9 + OK,
    OK + OK,
    OK + b"HTTP/1.1 101 X\r\nUpgrade: ,\r\n\r\n",
    b"HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 205 X\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n" + OK,
    b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokk\r\n0\r\n\r\n",
    b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 X\r\nContent-Length: 2, 2\r\n\r\nok",
    b"HTTP/1.1 200 X\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
    b"HTTP/1.1 200 X\r\nContent-Length: 2\r\nConnection: close, Content-Length\r\n\r\nok",
    b"HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.0 200 X\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 401 X\r\nWWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 401 X\r\nConnection: www-authenticate\r\nWWW-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 X\r\nPersistent-Auth: true\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 407 X\r\nProxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 502 X\r\nProxy-Status: nitroproxy-enclave; error=tls_certificate_error\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 X\r\nProxy-Status: nitroproxy-relay; error=dns_error\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 X\r\nX-Request-Id: theirs\r\nNitroproxy-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 X\r\n\r\nuntil the end",
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.1 999 X\r\n\r\n",
    b"SSH-2.0-OpenSSH\r\n",
    b"",
)


def hung_up(transport: object, *, half_closed: bool = False) -> bool:
    """The kernel's knowledge of a pipe; it knows nothing of a client's TCP connection."""
    return bool(getattr(transport, "peer_gone", False))


class MatrixTests(SynchronousTestCase):
    """Each answer, whole and byte by byte."""

    def setUp(self) -> None:
        for module in (downstream, tunnel):
            self.patch(module, "has_hung_up", hung_up)

    def answered(self, answer: bytes, *, split: bool) -> tuple[TwoHops, Wire, Wire]:
        """A client whose request to evil.example was answered like this, and that destination's connection."""
        hops = TwoHops()
        client = hops.client()
        hops.ask(client, EVIL)
        evil = hops.accept("evil.example")
        evil.take()
        for piece in [answer[i : i + 1] for i in range(len(answer))] if split else [answer]:
            hops.say(evil, piece)
        return hops, client, evil

    def each(self, check: Callable[[bytes, TwoHops, Wire, Wire], None]) -> None:
        """Check every answer, in each form."""
        for answer in ANSWERS:
            for split in (False, True):
                check(answer, *self.answered(answer, split=split))

    def test_next_request_goes_where_it_is_sent(self) -> None:
        """After any answer the client's next request reaches its own destination or none, and never the hostile one."""

        def check(answer: bytes, hops: TwoHops, client: Wire, evil: Wire) -> None:
            client.settle()
            if client.closed:
                return
            hops.ask(client, BANK)
            self.assertNotIn(b"secret", evil.take(), answer)
            if client.closed or "bank.example" not in hops.destinations:
                return  # The connection ended with the answer, or the first request still waits for one.
            bank = hops.accept("bank.example")
            self.assertIn(b"Authorization: secret", bank.take(), answer)
            client.take()
            hops.say(evil, b"HTTP/1.1 200 X\r\nContent-Length: 4\r\n\r\nevil")
            hops.say(bank, OK)
            self.assertNotIn(b"evil", client.take(), answer)

        self.each(check)

    def test_another_client(self) -> None:
        """After any answer another client of the same destination gets its own answer and nothing of the first
        client's."""

        def check(answer: bytes, hops: TwoHops, client: Wire, evil: Wire) -> None:
            client.take()
            other = hops.client()
            hops.ask(other, EVIL)
            self.assertEqual(other.take(), b"", answer)
            shared = b"GET / " in evil.take()
            wire = evil if shared else hops.accept("evil.example")
            hops.say(wire, b"HTTP/1.1 200 X\r\nContent-Length: 5\r\n\r\nother")
            self.assertTrue(other.take().endswith(b"\r\n\r\nother"), answer)
            self.assertEqual(client.take(), b"", answer)
            logs_in = any(word in answer for word in (b"401", b"Persistent-Auth"))
            self.assertFalse(shared and logs_in, answer)

        self.each(check)

    def test_nobody_speaks_for_us(self) -> None:
        """No answer makes a hop note, or tell the client, a failure that another hop of ours found."""

        def check(answer: bytes, hops: TwoHops, client: Wire, evil: Wire) -> None:
            told = client.take()
            self.assertNotIn(b"nitroproxy-relay", told, answer)
            if b"tls_certificate_error" in answer:
                self.assertNotIn(b"tls_certificate_error", told)
            passed_on = [record.passed_on for notes in hops.notes for record in notes.records]
            self.assertNotIn(("nitroproxy-relay", "dns_error"), passed_on, answer)
            self.assertNotIn(("nitroproxy-enclave", "tls_certificate_error"), passed_on, answer)

        self.each(check)

    def test_accounts_agree(self) -> None:
        """When the client has left after any answer, no hop has anything under way, and no pin outlives its client."""
        for leave in (Wire.lose, lambda wire: wire.lose(ConnectionDone()), Wire.end):

            def check(answer: bytes, hops: TwoHops, client: Wire, evil: Wire, leave: object = leave) -> None:
                if not client.closed:
                    leave(client)  # type: ignore[operator]
                hops.settle()
                if leave is Wire.end and not answer:
                    hops.say(evil, OK)  # A client that has half-closed is answered before its connection is closed.
                hops.pass_time(3)
                evil.settle()
                hops.settle()
                self.assertEqual(hops.in_flight, (0, 0, 0), answer)

            self.each(check)


class LeavingTests(SynchronousTestCase):
    """A client leaves at each moment of an exchange."""

    STEPS = (
        b"",
        b"HTTP/1.1 200 OK\r\nCont",
        b"ent-Length: 10\r\n\r\n",
        b"12345",
    )

    def setUp(self) -> None:
        for module in (downstream, tunnel):
            self.patch(module, "has_hung_up", hung_up)

    def test_every_moment(self) -> None:
        """Within a second of a client's reset nothing of its request is left on either hop or at the destination."""
        for request in (EVIL, EVIL.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\nhalf")):
            for moment in range(len(self.STEPS) + 1):
                hops = TwoHops()
                client = hops.client()
                hops.ask(client, request)
                evil = None
                if moment:
                    evil = hops.accept("evil.example")
                    for step in self.STEPS[:moment]:
                        hops.say(evil, step)
                client.lose()
                hops.settle()
                hops.pass_time(1)
                self.assertEqual(hops.in_flight, (0, 0, 0), (request, moment))
                if evil is not None:
                    self.assertTrue(evil.aborted, (request, moment))
                else:
                    self.assertEqual(hops.destinations["evil.example"].cancelled, 1)
                self.assertTrue(hops.notes[0].records[-1].client_gone)

    def test_half_close(self) -> None:
        """A client that only ends its direction is answered, at every moment."""
        for moment in range(len(self.STEPS) + 1):
            hops = TwoHops()
            client = hops.client()
            hops.ask(client, EVIL)
            if not moment:
                client.end()
            evil = hops.accept("evil.example")
            for number, step in enumerate(self.STEPS, 1):
                hops.say(evil, step)
                if number == moment:
                    client.end()
                    hops.settle()
            hops.pass_time(2)
            hops.say(evil, b"67890")
            self.assertTrue(client.take().endswith(b"1234567890"), moment)
