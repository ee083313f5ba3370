"""What is wrong with a head, in words: each names the field or the part, and never shows a value."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import DETAIL_BYTES, ProxyError
from nitroproxy.http1.faults import longest_field, misshapen_line, odd_byte, shown
from nitroproxy.http1.messages import Limits
from nitroproxy.http1.reader import RequestReader, ResponseReader

HEAD = b"POST /x?s3cret HTTP/1.1\r\nHost: a\r\n"
STATUS = b"HTTP/1.1 200 OK\r\nDate: x\r\n"

#: What makes a head wrong, in a request and in a response alike, and what the message must name.
FIELDS = [
    (b"X-Odd: s3cret\x00", "the field 'X-Odd' holds the control character 0x00"),
    (b"X-Odd: s3cret\x7f", "the field 'X-Odd' holds the control character 0x7f"),
    (b"X-Odd: s3cret\rs3cret", "the field 'X-Odd' holds a bare CR"),
    (b"X-Odd: s3cret\ns3cret", "the field 'X-Odd' holds a bare LF"),
    (b"X\x01Odd: s3cret", "line 2 of the header section holds the control character 0x01"),
    (b"X-Odd: s3cret\r\n s3cret", "the field 'X-Odd' is followed by a line that begins with white space"),
    (b"X-Odd:\r\n\ts3cret", "the field 'X-Odd' is followed by a line that begins with white space"),
    (b"X-Odd: s3cret\r\ns3cret", "line 3 of the header section, after the field 'X-Odd', has no colon"),
    (b": s3cret", "line 2 of the header section, after the field"),
    (b"X-Odd : s3cret", "white space between the field name 'X-Odd' and its colon"),
    (b"X Odd: s3cret", "the field name 'X Odd' holds a character that no name has"),
    (b"X-\xe4: s3cret", "the field name 'X-\\xe4' holds"),
    (b"Y" * 100_000 + b": s3cret", "the field '" + "Y" * 64 + "'"),
    (b"Content-Length: s3cret", "Content-Length"),
    (b"Content-Length: 1\r\nContent-Length: 1", "Content-Length"),
    (b"Content-Length: 99999999999999999999", "Content-Length"),
    (b"Content-Length: 9223372036854775808", "Content-Length"),
    (b"Content-Length: ", "Content-Length"),
    (b"Transfer-Encoding: gzip", "Transfer-Encoding"),
    (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding"),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 1", "Transfer-Encoding"),
    (b"Transfer-Encoding: ", "Transfer-Encoding"),
    (b"Content_Length: 1", "'content_length'"),
    (b"Connection: " + b",".join(b"o%d" % number for number in range(33)), "the Connection field"),
    (b"\r\n".join(b"X-%d: s3cret" % number for number in range(101)), "'X-99' is one too many"),
]
REQUESTS = [
    (HEAD + b"Host: b\r\n\r\n", "more than one Host field"),
    (b"GET / HTTP/1.1\r\n\r\n", "no Host field"),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "the Host field"),
    (HEAD + b"Expect: s3cret\r\n\r\n", "the Expect field"),
    (
        b"GET /?q=\xe4\xb8\xad HTTP/1.1\r\nHost: a\r\n\r\n",
        "the request target is not ASCII: percent-encode the UTF-8 bytes",
    ),
    (b"GET s3cret HTTP/1.1\r\nHost: a\r\n\r\n", "the request target is malformed"),
    (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", "'HTTP/1.2'"),
    (b"GET /s3cret s3cret HTTP/1.1\r\nHost: a\r\n\r\n", "the request line has 4 parts"),
    (b"Head / HTTP/1.1\r\nHost: a\r\n\r\n", "methods are case-sensitive: 'HEAD', not 'Head'"),
    (b"FE(TCH / HTTP/1.1\r\nHost: a\r\n\r\n", "'FE(TCH' is not a method"),
    (b"G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n", "the start line holds the control character 0x00"),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", "Content-Length"),
    (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding"),
    (HEAD + b"\x20X: s3cret\r\n\r\n", "the field 'Host' is followed by a line"),
]


class FaultTests(SynchronousTestCase):
    """Through the readers (K7)."""

    def detail(self, message: bytes, *, response: bool = False) -> str:
        """What the reader says of *message*."""
        reader = ResponseReader(Limits()) if response else RequestReader(Limits())
        reader.feed(message)
        head = (lambda: reader.read_head(b"GET")) if isinstance(reader, ResponseReader) else reader.read_head
        detail = self.assertRaises(ProxyError, head).detail
        self.assertLessEqual(len(detail.encode()), DETAIL_BYTES)
        self.assertNotIn("s3cret", detail)
        return str(detail)

    def test_fields(self) -> None:
        """Whatever is wrong with a field, the message names it, in a request and in a response."""
        for lines, expected in FIELDS:
            self.assertIn(expected, self.detail(HEAD + lines + b"\r\n\r\n"))
            self.assertIn(expected, self.detail(STATUS + lines + b"\r\n\r\n", response=True))

    def test_requests(self) -> None:
        """What only a request can have wrong is named as well."""
        for message, expected in REQUESTS:
            self.assertIn(expected, self.detail(message))

    def test_trailer(self) -> None:
        """A trailer field that is wrong is named."""
        reader = RequestReader(Limits())
        reader.feed(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-T: s3cret\x01\r\n\r\n")
        reader.read_head()
        self.assertIn("the trailer field 'X-T'", self.assertRaises(ProxyError, reader.read_body).detail)

    def test_many_options(self) -> None:
        """Connection may name 32 options, in a field as long as a head may be."""
        reader = RequestReader(Limits())
        reader.feed(
            HEAD
            + b"Connection: "
            + b", ".join(b"option-%d" % number + b"-" * 1000 for number in range(32))
            + b"\r\n\r\n"
        )
        request = reader.read_head()
        assert request is not None
        self.assertEqual(len(request.connection_options), 32)


class WordsTests(SynchronousTestCase):
    """The parts by themselves."""

    def test_shown(self) -> None:
        """A name is quoted, escaped, and cut."""
        self.assertEqual(shown(b"a\n\xe4"), "'a\\n\\xe4'")
        self.assertEqual(shown(b"x" * 65), f"'{'x' * 64}'…")

    def test_nothing_wrong(self) -> None:
        """A sound head has nothing wrong."""
        for head in (HEAD + b"\r\n", STATUS + b"\r\n", b"HTTP/1.1 200 Schl\xf6n\r\nX: \xe4\r\n\r\n"):
            self.assertIsNone(odd_byte(head))
            self.assertIsNone(misshapen_line(head))

    def test_longest(self) -> None:
        """The field, or the start line, that takes most of a head."""
        self.assertEqual(longest_field(HEAD + b"Cookie: " + b"x" * 92), "the field 'Cookie' has 100")
        self.assertEqual(longest_field(HEAD), "the start line has 23")
