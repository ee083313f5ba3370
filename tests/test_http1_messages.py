"""The heads of messages as values: `nitroproxy.http1.messages`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.http1.messages import CHUNKED, UNTIL_CLOSE, Fields, Limits, Request


class FieldsTests(SynchronousTestCase):
    """A header section."""

    def test_order_and_case(self) -> None:
        """Fields stay in order and as they were spelled; they are found without regard to case."""
        headers = [(b"X-A", b"1"), (b"Host", b"a"), (b"x-a", b"2")]
        fields = Fields(headers)
        self.assertEqual(fields.in_order, headers)
        self.assertEqual(fields.values, {b"x-a": [b"1", b"2"], b"host": [b"a"]})
        self.assertEqual((fields.get(b"x-a"), fields.get(b"host"), fields.get(b"other")), (b"1", b"a", None))

    def test_white_space(self) -> None:
        """White space after a value is not part of it, in either view; other bytes are."""
        fields = Fields([(b"A", b"1 \t "), (b"B", b" \t"), (b"C", b"x\xa0")])
        self.assertEqual(fields.in_order, [(b"A", b"1"), (b"B", b""), (b"C", b"x\xa0")])
        self.assertEqual(fields.values, {b"a": [b"1"], b"b": [b""], b"c": [b"x\xa0"]})

    def test_separate(self) -> None:
        """Two sections share nothing, and neither do two requests made without one."""
        first, second = Fields(), Fields()
        first.add(b"A", b"1")
        self.assertEqual((second.in_order, second.values), ([], {}))


class LengthTests(SynchronousTestCase):
    """What is no number of bytes."""

    def test_apart(self) -> None:
        """The lengths that are unknown are apart, and no length of a body."""
        self.assertEqual(len({CHUNKED, UNTIL_CLOSE, 0}), 3)
        self.assertLess(max(CHUNKED, UNTIL_CLOSE), 0)

    def test_defaults(self) -> None:
        """Without more a request has no body, and its target fits into its head."""
        self.assertEqual(Request(b"GET", b"/", Fields()).content_length, 0)
        self.assertLess(Limits().target_bytes, Limits().header_bytes)
