"""What a proxy passes on of a header section, and how it knows its own Via."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.http1.headers import end_to_end, members, names_in_via


class HeaderRuleTests(SynchronousTestCase):
    """What a proxy passes on (S6)."""

    def test_connection_cannot_remove_what_frames(self) -> None:
        """Connection names fields of one connection; it cannot take Content-Length or Host away."""
        headers = [(b"Content-Length", b"3"), (b"Host", b"a"), (b"X", b"y")]
        options = frozenset({b"content-length", b"host", b"x"})
        self.assertEqual(end_to_end(headers, options), headers[:2])

    def test_members(self) -> None:
        """Empty members of a list do not count, nor does white space around one (RFC 9110 section 5.6.1)."""
        self.assertEqual(members([b" a , ,b\t", b",", b"", b"c"]), [b"a", b"b", b"c"])

    def test_via(self) -> None:
        """Only the received-by of a Via member counts, not a comment or a part of a name."""
        self.assertTrue(names_in_via([b"1.1 you", b"1.0 x, 1.1 me (comment)"], b"me"))
        self.assertFalse(names_in_via([b"1.1 you (me), 1.1 mee"], b"me"))
