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
        """The received-by of each Via member is found, but no comment, and no name that only contains the prefix."""
        via = [b"1.1 you", b"1.0 x, 1.1 me-1 (comment)", b"1.1 you (me-2), HTTP/1.1 me-3,me-4, 1.1 not-me-5"]
        self.assertEqual(list(names_in_via(via, b"me-")), [b"me-1", b"me-3"])
