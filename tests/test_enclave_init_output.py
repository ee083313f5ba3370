"""A child's output becomes lines, whatever its pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.enclave.init_output import LINE_BYTES, LastLines, LineSplitter


class SplitterTests(SynchronousTestCase):
    """`LineSplitter`."""

    def _lines(self, *pieces: bytes) -> list[str]:
        lines: list[str] = []
        splitter = LineSplitter(lines.append)
        for piece in pieces:
            splitter.feed(piece)
        splitter.end()
        return lines

    def test_lines(self) -> None:
        """Lines end at line feeds, with or without carriage returns; the last needs none."""
        self.assertEqual(self._lines(b"a\nb\r\n\nc"), ["a", "b", "", "c"])
        self.assertEqual(self._lines(b""), [])

    def test_undecodable(self) -> None:
        """Bytes that are not UTF-8 are escaped, not lost."""
        self.assertEqual(self._lines(b"\xff\xc3\xa4\n"), ["\\xff\u00e4"])

    def test_long_lines(self) -> None:
        """A line without an end is cut, so that what waits has a bound."""
        lines: list[str] = []
        splitter = LineSplitter(lines.append)
        for _ in range(10):
            splitter.feed(b"x" * LINE_BYTES)
        self.assertGreaterEqual(len(lines), 9)
        splitter.end()
        self.assertEqual("".join(lines), "x" * 10 * LINE_BYTES)
        self.assertLessEqual(max(map(len, self._lines(b"y" * 99_999 + b"\n"))), LINE_BYTES)

    @given(st.lists(st.binary(max_size=30)))
    def test_pieces(self, pieces: list[bytes]) -> None:
        """How the bytes are cut into pieces makes no difference."""
        self.assertEqual(self._lines(*pieces), self._lines(b"".join(pieces)))


class LastLinesTests(SynchronousTestCase):
    """`LastLines`."""

    def test_bounds(self) -> None:
        """The last twenty lines are kept, each shortened."""
        last = LastLines()
        for number in range(100):
            last.add(f"{number} " + "x" * 99)
        kept = str(last).splitlines()
        self.assertEqual((len(kept), kept[0][:3], kept[-1][:3]), (20, "80 ", "99 "))
        last.add("y" * 9999)
        self.assertEqual(len(str(last).splitlines()[-1]), 500)

    def test_bytes(self) -> None:
        """Of long lines the last ones are kept, so that the message that holds them is not cut at its end."""
        for letter in ("x", "é", "\U0001f600", "\ud800"):
            last = LastLines()
            for number in range(100):
                last.add(f"{number} " + letter * 9999)
            kept = str(last)
            self.assertLessEqual(len(kept.encode("utf-8", "backslashreplace")), 3072)
            self.assertEqual(kept.splitlines()[-1][:3], "99 ")
