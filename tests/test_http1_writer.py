"""Heads to bytes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

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
