"""What fields decide of a message's framing."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.http1 import framing
from nitroproxy.http1.framing import HeadFields, offered_protocols


class FramingTests(SynchronousTestCase):
    """Heads with one kind of field each."""

    def fields(self, name: bytes, *values: bytes) -> HeadFields:
        """A head with a field line for each value."""
        return HeadFields((name, value) for value in values)

    def test_content_length(self) -> None:
        """One field with one number up to 2^63-1; everything that two readers could read differently is refused."""
        self.assertIsNone(HeadFields().content_length())
        for good in (b"0", b"0007", b"9223372036854775807"):
            self.assertEqual(self.fields(b"Content-Length", good).content_length(), int(good))
        for bad in ((b"1", b"1"), (b"",), (b"1, 1",), (b"+1",), (b"-1",), (b"1_0",), (b"9223372036854775808",)):
            error = self.assertRaises(ValueError, self.fields(b"Content-Length", *bad).content_length)
            self.assertIn("Content-Length", str(error))

    def test_options(self) -> None:
        """Options of all field lines together, in lower case and without empty members; at most 32 of them."""
        self.assertEqual(HeadFields().connection_options(), frozenset())
        self.assertEqual(self.fields(b"Connection", b"Close, ,", b"X-A").connection_options(), {b"close", b"x-a"})
        self.assertEqual(self.fields(b"Connection", *[b"close"] * 50).connection_options(), {b"close"})
        many = [b"o%d" % number for number in range(33)]
        self.assertEqual(len(self.fields(b"Connection", *many[:32]).connection_options()), 32)
        for values in (many, [b",".join(many)]):
            self.assertRaises(ValueError, self.fields(b"Connection", *values).connection_options)

    def test_long_options_are_not_remembered(self) -> None:
        """The cache of Connection values holds short ones only: long ones would keep megabytes for good (K4)."""
        before = framing._usual_options.cache_info().misses
        self.fields(b"Connection", b"close, " + b"x" * 58).connection_options()
        self.assertEqual(framing._usual_options.cache_info().misses, before)
        self.fields(b"Connection", b"close, " + b"x" * 57).connection_options()
        self.assertEqual(framing._usual_options.cache_info().misses, before + 1)

    def test_imitation(self) -> None:
        """A name that reads as one that is acted on when an underscore counts as a hyphen is found; others are not."""
        self.assertEqual(self.fields(b"Transfer_Encoding", b"x").imitation(), b"transfer_encoding")
        self.assertIsNone(self.fields(b"X_Custom", b"x").imitation())
        self.assertIsNone(self.fields(b"Transfer-Encoding", b"x").imitation())

    def test_codings(self) -> None:
        """All codings of all field lines, in order and in lower case."""
        self.assertIsNone(HeadFields().transfer_codings())
        self.assertEqual(self.fields(b"Transfer-Encoding", b"GZIP", b"Chunked").transfer_codings(), b"gzip,chunked")

    def test_protocols(self) -> None:
        """The protocols on offer, without HTTP/2 and without empty members."""
        self.assertEqual(offered_protocols([b"websocket, H2C,", b" foo/1"]), b"websocket, foo/1")
        for none in ([], [b""], [b", ,"], [b"h2c"]):
            self.assertIsNone(offered_protocols(none))
