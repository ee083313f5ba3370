"""What identifies a request, and a hop, on the way."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.http1.messages import Fields, Request
from nitroproxy.proxy.route import Forward
from nitroproxy.proxy.trace import ViaName, new_request_id, request_id_of, trace_headers, traceparent_of
from tests.wire import GET, OneHop, Wire, split_head

IDS = b"4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
PARENT = b"00-" + IDS + b"-01"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"


def with_header(*headers: tuple[bytes, bytes]) -> Request:
    """A request with these headers."""
    return Request(b"GET", b"/", Fields(headers))


def ask(client: Wire, *lines: bytes) -> None:
    """Send a GET with more header lines."""
    client.receive(GET[:-2] + b"".join(line + b"\r\n" for line in lines) + b"\r\n")


class RequestIdTests(SynchronousTestCase):
    """Ids (K1)."""

    def test_usable(self) -> None:
        """A usable id is kept, the previous hop's before the client's; one that could break a log line is replaced."""
        client, hop = (b"X-Request-ID", b"a.B-9_"), (b"Nitroproxy-Request-ID", b"b")
        self.assertEqual(request_id_of(with_header(client)), b"a.B-9_")
        self.assertEqual(request_id_of(with_header(client, hop)), b"b")
        self.assertEqual(request_id_of(with_header(client, (hop[0], b"a b"))), b"a.B-9_")
        for bad in (b"", b"a b", b"a\tb", b"x" * 65, b"\xff", b'"'):
            self.assertRegex(request_id_of(with_header((b"X-Request-Id", bad))), rb"^[0-9a-f]{32}$")

    def test_random(self) -> None:
        """Ids of one process have nothing in common: neither a common prefix nor a growing number."""
        ids = [new_request_id() for _ in range(64)]
        for position in range(32):
            self.assertGreater(len({one[position] for one in ids}), 1)

    def destination(self) -> OneHop:
        """A hop whose next hop is a destination."""
        hop = OneHop(lambda request: Forward(hop.pool, "d", request.target, b"d.example"))
        return hop

    def test_destination_gets_no_id(self) -> None:
        """A destination gets no id of ours, made by this hop or an earlier one; it gets the client's."""
        hop = self.destination()
        for lines, expected in (
            ([], None),
            ([b"Nitroproxy-Request-Id: x"], None),
            ([b"X-Request-Id: not usable"], b"not usable"),
            ([b"X-Request-Id: mine", b"Nitroproxy-Request-Id: x"], b"mine"),
        ):
            ask(hop.client(), *lines)
            _, headers, _ = split_head(hop.endpoint.accept().take())
            self.assertNotIn(b"nitroproxy-request-id", headers)
            self.assertEqual(headers.get(b"x-request-id"), expected)

    def test_between_hops(self) -> None:
        """A hop of ours gets the id in our field; the client's field is passed on beside it."""
        hop = OneHop()
        ask(hop.client(), b"X-Request-Id: mine")
        _, headers, _ = split_head(hop.endpoint.accept().take())
        self.assertEqual((headers[b"nitroproxy-request-id"], headers[b"x-request-id"]), (b"mine", b"mine"))

    def test_answers(self) -> None:
        """The answer has our id in our field; X-Request-Id has the destination's, or ours if that sent none. A
        destination's value in our field is ignored."""
        for theirs, expected in (
            (b"", b"mine"),
            (b"X-Request-Id: theirs\r\n", b"theirs"),
            (b"X-Request-Id: theirs\r\nNitroproxy-Request-Id: forged\r\n", b"theirs"),
            (b"X-Request-Id: theirs\r\nConnection: X-Request-Id\r\n", b"mine"),
        ):
            hop = self.destination()
            client = hop.client()
            ask(client, b"X-Request-Id: mine")
            hop.endpoint.accept().receive(OK + theirs + b"\r\n")
            answer = client.take()
            _, headers, _ = split_head(answer)
            self.assertEqual((headers[b"nitroproxy-request-id"], headers[b"x-request-id"]), (b"mine", expected))
            self.assertEqual(answer.lower().count(b"x-request-id"), 1)
            self.assertEqual(answer.lower().count(b"nitroproxy-request-id"), 1)

    def test_two_hops(self) -> None:
        """Through two hops a destination's X-Request-Id reaches the client, and both hops use one id."""
        inner = self.destination()
        outer = OneHop()
        client, second = outer.client(), inner.client()
        ask(client)
        upstream = outer.endpoint.accept()
        second.receive(upstream.take())
        inner.endpoint.accept().receive(OK + b"X-Request-Id: theirs\r\n\r\n")
        between = second.take()
        upstream.receive(between)
        _, inside, _ = split_head(between)
        _, headers, _ = split_head(client.take())
        self.assertEqual(headers[b"x-request-id"], b"theirs")
        self.assertEqual(headers[b"nitroproxy-request-id"], inside[b"nitroproxy-request-id"])

    def test_other_answers(self) -> None:
        """A failure, a switch of protocols and a page of our own have both fields."""
        hop = self.destination()
        failed, switched, own = (hop.client() for _ in range(3))
        ask(failed, b"X-Request-Id: mine", b"Expect: x")
        own.receive(b"OPTIONS / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\nMax-Forwards: 0\r\n\r\n")
        ask(switched, b"X-Request-Id: mine", b"Connection: upgrade", b"Upgrade: websocket")
        switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        hop.endpoint.accept().receive(switch)
        for client in (own, switched):
            _, headers, _ = split_head(client.take())
            self.assertEqual((headers[b"nitroproxy-request-id"], headers[b"x-request-id"]), (b"mine", b"mine"))
        _, headers, _ = split_head(failed.take())
        self.assertEqual(headers[b"nitroproxy-request-id"], headers[b"x-request-id"])


class TraceContextTests(SynchronousTestCase):
    """W3C Trace Context (K7)."""

    def test_valid(self) -> None:
        """A valid context is kept; otherwise one is made if configured, and none if not."""
        self.assertEqual(traceparent_of(with_header((b"TraceParent", PARENT)), make=False), PARENT)
        for bad in (
            b"",
            PARENT.upper(),
            PARENT[:-1],
            PARENT + b"-x",
            PARENT.replace(b"00f067aa0ba902b7", b"0" * 16),
            b"ff" + PARENT[2:],
            b"01" + PARENT[2:] + b"x",
            b"01" + PARENT[2:].replace(b"00f067aa0ba902b7", b"0" * 16),
            b"01" + PARENT[2:-1],
        ):
            request = with_header((b"traceparent", bad))
            self.assertEqual(traceparent_of(request, make=False), b"", bad)
            self.assertRegex(traceparent_of(request, make=True), rb"^00-[0-9a-f]{32}-")
        twice = with_header((b"traceparent", PARENT), (b"traceparent", PARENT))
        self.assertEqual(traceparent_of(twice, make=False), b"")

    def test_later_versions(self) -> None:
        """A later version is read as far as version 00 goes, and written as version 00 (section 3.2.4)."""
        for version, flags, rest, expected in (
            (b"01", b"01", b"", b"01"),
            (b"01", b"ff", b"-" + b"x" * 10_000, b"03"),
            (b"cc", b"00", b"-what-the-future-will-be-like", b"00"),
        ):
            given = with_header((b"traceparent", b"-".join((version, IDS, flags)) + rest))
            self.assertEqual(traceparent_of(given, make=False), b"00-" + IDS + b"-" + expected)

    def test_state_needs_its_parent(self) -> None:
        """A tracestate is passed on with the valid traceparent that it came with; otherwise it is dropped, even if a
        new traceparent is made."""
        for make in (False, True):
            for given, kept in ((PARENT, True), (b"01" + PARENT[2:], True), (b"00-x", False), (None, False)):
                hop = OneHop()
                hop.set(make_traceparent=make)
                lines = [b"tracestate: a=b"] + ([b"traceparent: " + given] if given else [])
                ask(hop.client(), *lines)
                _, headers, _ = split_head(hop.endpoint.accept().take())
                self.assertEqual(headers.get(b"tracestate"), b"a=b" if kept else None, (make, given))

    def test_headers(self) -> None:
        """A hop of ours gets the id and the context, a destination only the context."""
        identity = (b"Nitroproxy-Request-Id", b"i")
        self.assertEqual(trace_headers(b"i", b""), [identity])
        self.assertEqual(trace_headers(b"i", PARENT), [identity, (b"traceparent", PARENT)])
        self.assertEqual(trace_headers(b"i", PARENT, ours=False), [(b"traceparent", PARENT)])


class ViaTests(SynchronousTestCase):
    """Our name in Via: only our own processes recognize it (K1, S6)."""

    def test_unlinkable(self) -> None:
        """Two names have only the hop's name in common."""
        name = ViaName("nitroproxy-test", bytes(16))
        names = [name.fresh() for _ in range(64)]
        self.assertTrue(all(one.startswith(b"nitroproxy-test-") and len(one) == 48 for one in names))
        for position in range(16, 48):
            self.assertGreater(len({one[position] for one in names}), 1)

    def test_recognized(self) -> None:
        """With the key a name is recognized among others; without the key it is unknown."""
        ours, worker, stranger = (ViaName("nitroproxy-test", key) for key in (bytes(16), bytes(16), b"\1" * 16))
        name = ours.fresh()
        via = [b"1.1 cdn", b"1.0 x, 1.1 " + name + b" (comment)"]
        self.assertEqual([one.is_in(via) for one in (ours, worker, stranger)], [True, True, False])
        for forged in (name[:-1], name + b"0", name[:-1] + bytes([name[-1] ^ 1]), name.upper(), name[:16] + b"x" * 32):
            self.assertFalse(ours.is_in([b"1.1 " + forged]), forged)

    def test_responses(self) -> None:
        """A response's Via names the hop and no process."""
        hop = OneHop()
        client = hop.client()
        ask(client)
        hop.endpoint.accept().receive(OK + b"\r\n")
        self.assertEqual(split_head(client.take())[1][b"via"], b"1.1 nitroproxy-test")
