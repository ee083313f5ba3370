"""Heads to bytes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.http1.chunked import ChunkedDecoder, encode_chunk
from nitroproxy.http1.headers import end_to_end, names_in_via
from nitroproxy.http1.writer import reason_phrase, request_head, response_head


class WriterTests(SynchronousTestCase):
    """What is written, and what is refused."""

    def test_heads(self) -> None:
        """A head is its start line, its fields and an empty line."""
        self.assertEqual(request_head(b"GET", b"/x", [(b"Host", b"a")]), b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(response_head(200, reason_phrase(200), []), b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertEqual(reason_phrase(299), b"")

    def test_no_line_breaks(self) -> None:
        """No part can smuggle a line in, whoever passed it."""
        for part in (b"a\r\nX: y", b"a\nb", b"a\rb"):
            self.assertRaises(ValueError, request_head, b"GET", part, [])
            self.assertRaises(ValueError, request_head, part, b"/", [])
            self.assertRaises(ValueError, response_head, 200, part, [])
            self.assertRaises(ValueError, response_head, 200, b"", [(b"X", part)])
            self.assertRaises(ValueError, response_head, 200, b"", [(part, b"x")])

    def test_chunks_come_back(self) -> None:
        """What is chunked is unchunked; an empty chunk, which would end the body, is refused."""
        decoder = ChunkedDecoder(100, 10)
        content, rest = decoder.decode(b"".join(encode_chunk(b"x" * 300)) + b"0\r\n\r\nrest")
        self.assertEqual((content, rest, decoder.done), (b"x" * 300, b"rest", True))
        self.assertRaises(ValueError, encode_chunk, b"")


class HeaderRuleTests(SynchronousTestCase):
    """What a proxy passes on (S6)."""

    def test_connection_cannot_remove_what_frames(self) -> None:
        """Connection names fields of one connection; it cannot take Content-Length or Host away."""
        headers = [(b"Content-Length", b"3"), (b"Host", b"a"), (b"X", b"y")]
        options = frozenset({b"content-length", b"host", b"x"})
        self.assertEqual(end_to_end(headers, options), headers[:2])

    def test_via(self) -> None:
        """Only the received-by of a Via member counts, not a comment or a part of a name."""
        self.assertTrue(names_in_via([(b"via", b"1.0 x, 1.1 me (comment)")], b"me"))
        self.assertFalse(names_in_via([(b"via", b"1.1 you (me), 1.1 mee")], b"me"))
