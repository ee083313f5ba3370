"""The reader against vectors and arbitrary splits. The vectors are in tests/vectors, one case a line, bytes as
Latin-1."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import UNTIL_CLOSE, Limits, Request
from nitroproxy.http1.reader import RequestReader, ResponseReader

VECTORS = Path(__file__).parent / "vectors"
#: The same request twice over, then a chunked one: what the split tests cut to pieces.
STREAM = (
    b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    b"\r\nGET /2 HTTP/1.1\r\nHost: a\r\nX:  y \r\n\r\n"
    b"PUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\n0010\r\n0123456789abcdef\r\n0\r\nT: u\r\n\r\n"
    b"GET /4 HTTP/1.1\r\nHost: a\r\n\r\n"
)


def vectors(name: str) -> list[dict[str, Any]]:
    """The cases of one vector file."""
    cases: list[dict[str, Any]] = json.loads((VECTORS / f"{name}.json").read_text("ascii"))
    return cases


def read_all(reader: RequestReader, pieces: list[bytes]) -> list[tuple[Request, bytes]]:
    """Every request in *pieces*, with its body."""
    requests: list[tuple[Request, bytes]] = []
    current: Request | None = None
    body = b""
    for piece in pieces:
        reader.feed(piece)
        while True:
            if current is None:
                current = reader.read_head()
                if current is None:
                    break
            body += reader.read_body()
            if not reader.complete:
                break
            requests.append((current, body))
            current, body = None, b""
            reader.next_message()
    return requests


def one_by_one(data: bytes) -> list[bytes]:
    """*data* a byte at a time."""
    return [data[i : i + 1] for i in range(len(data))]


class RequestTests(SynchronousTestCase):
    """Requests, well formed and not (S1 to S5, S7)."""

    def test_refused(self) -> None:
        """Each hostile request is refused for the right reason, whole and byte by byte, and nothing is read after
        it."""
        for case in vectors("requests_refused"):
            data = case["bytes"].encode("latin-1")
            for pieces in ([data], one_by_one(data)):
                reader = RequestReader(Limits())
                error = self.assertRaises(ProxyError, read_all, reader, [*pieces, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
                self.assertEqual(error.kind.public_name, case["error"], case["name"])
                reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                self.assertIs(self.assertRaises(ProxyError, reader.read_head), error, case["name"])

    def test_accepted(self) -> None:
        """Each good request is read, whole and byte by byte."""
        for case in vectors("requests_accepted"):
            data = case["bytes"].encode("latin-1")
            for pieces in ([data], one_by_one(data)):
                [(request, body)] = read_all(RequestReader(Limits()), pieces)
                seen = (request.method, request.target, body, request.keep_alive)
                expected = (*(case[key].encode("latin-1") for key in ("method", "target", "body")), case["keep_alive"])
                self.assertEqual(seen, expected, case["name"])

    def test_what_to_encode(self) -> None:
        """A target with bytes that no target may hold says how to write them, and never repeats the query."""
        for target, words in (
            ("/https://a.example/?q=中文", "percent-encode the UTF-8 bytes of path and query, as in %E4%B8%AD"),
            ("/é", "percent-encode"),
            ("bücher.example:443", "A-labels (xn--)"),
            ("/x?q=a b", "a space in a target is %20"),
            ("/x?q=a\tb", "a tab, which is %09"),
        ):
            reader = RequestReader(Limits())
            reader.feed(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            error = self.assertRaises(ProxyError, reader.read_head)
            self.assertIs(error.kind, Kind.MALFORMED_REQUEST)
            self.assertIn(words, error.detail)
            self.assertNotRegex(error.detail, "q=|中")

    def test_long_target(self) -> None:
        """A target over the limit is 414, whether it comes in one piece or in many (S7)."""
        for size, kind in ((16385, Kind.TARGET_TOO_LONG), (70000, Kind.TARGET_TOO_LONG)):
            data = b"GET /" + b"x" * (size - 1) + b" HTTP/1.1\r\nHost: a\r\n\r\n"
            for pieces in ([data], [data[i : i + 1000] for i in range(0, len(data), 1000)]):
                error = self.assertRaises(ProxyError, read_all, RequestReader(Limits()), pieces)
                self.assertIs(error.kind, kind)
        longest = b"GET /" + b"x" * 16383 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
        self.assertEqual(len(read_all(RequestReader(Limits()), [longest])), 1)

    def test_other_limits(self) -> None:
        """Limits that are replaced hold for the next message, each of them."""
        for limits, kind in (
            (Limits(header_bytes=1024), Kind.HEADERS_TOO_LARGE),
            (Limits(header_count=5), Kind.HEADERS_TOO_LARGE),
            (Limits(target_bytes=100), Kind.TARGET_TOO_LONG),
        ):
            reader = RequestReader(Limits())
            reader.limit(limits)
            fields = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 200) for number in range(10))
            reader.feed(b"GET /%b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (b"y" * 200, fields))
            self.assertIs(self.assertRaises(ProxyError, reader.read_head).kind, kind)

    def test_next_request_waits(self) -> None:
        """Bytes after a message stay unread until they are asked for."""
        reader = RequestReader(Limits())
        reader.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGARBAGE")
        self.assertIsNotNone(reader.read_head())
        self.assertTrue(reader.complete)
        self.assertEqual(reader.take_rest(), b"GARBAGE")

    @settings(deadline=None, derandomize=True, max_examples=200)
    @given(st.lists(st.integers(0, len(STREAM)), max_size=12))
    def test_any_split(self, cuts: list[int]) -> None:
        """However a stream of requests is cut, the same requests are read."""
        edges = [0, *sorted(cuts), len(STREAM)]
        pieces = [STREAM[a:b] for a, b in itertools.pairwise(edges)]
        whole = read_all(RequestReader(Limits()), [STREAM])
        self.assertEqual([body for _, body in whole], [b"hello", b"", b"abc0123456789abcdef", b""])
        self.assertEqual(whole[1][0].fields.get(b"x"), b"y")
        self.assertEqual(read_all(RequestReader(Limits()), pieces), whole)

    @settings(deadline=None, derandomize=True, max_examples=300)
    @given(st.binary(max_size=200), st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: a\r\n"]))
    def test_noise(self, noise: bytes, start: bytes) -> None:
        """Whatever arrives, the reader gives requests, waits, or raises ProxyError; whole and by the byte alike."""
        outcomes = []
        for pieces in ([start + noise], one_by_one(start + noise)):
            try:
                outcomes.append(len(read_all(RequestReader(Limits()), pieces)))
            except ProxyError:
                outcomes.append(-1)
        self.assertEqual(outcomes[0], outcomes[1])


class ResponseTests(SynchronousTestCase):
    """Responses, by the same rules (S9)."""

    def read(self, pieces: list[bytes]) -> tuple[bytes, bool]:
        reader = ResponseReader(Limits())
        response, body = None, b""
        for piece in pieces:
            reader.feed(piece)
            response = response or reader.read_head(b"GET")
            if response is not None:
                body += reader.read_body()
        assert response is not None
        self.assertTrue(reader.complete)
        return body, response.keep_alive

    def test_vectors(self) -> None:
        """Each response is read or refused, whole and byte by byte."""
        for case in vectors("responses"):
            data = case["bytes"].encode("latin-1")
            for pieces in ([data], one_by_one(data)):
                if case["error"] is None:
                    self.assertEqual(self.read(pieces), (case["body"].encode(), case["keep_alive"]), case["name"])
                else:
                    error = self.assertRaises(ProxyError, self.read, pieces)
                    self.assertEqual(error.kind.public_name, case["error"], case["name"])

    def test_until_close(self) -> None:
        """A body without a length ends with the connection, if that ended on purpose (S16)."""
        for clean in (True, False):
            reader = ResponseReader(Limits())
            reader.feed(b"HTTP/1.1 200 OK\r\n\r\nabc")
            response = reader.read_head(b"GET")
            assert response is not None
            self.assertEqual(response.content_length, UNTIL_CLOSE)
            self.assertFalse(response.keep_alive)
            self.assertEqual(reader.read_body(), b"abc")
            self.assertFalse(reader.complete)
            if clean:
                reader.end_of_input(clean)
                self.assertTrue(reader.complete)
            else:
                error = self.assertRaises(ProxyError, reader.end_of_input, clean)
                self.assertIs(error.kind, Kind.HTTP_RESPONSE_INCOMPLETE)
