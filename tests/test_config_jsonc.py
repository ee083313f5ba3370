"""Tests of `nitroproxy.config.jsonc`."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.jsonc import Members, UnreadableError, parse, read


class ParseTests(SynchronousTestCase):
    """What a text says."""

    def test_json(self) -> None:
        """Plain JSON gives its values, and objects as their members in order."""
        self.assertEqual(
            parse('{"b": 1, "a": [true, null, "x", 1.5]}'), Members([("b", 1), ("a", [True, None, "x", 1.5])])
        )

    def test_comments_and_trailing_commas(self) -> None:
        """Comments and trailing commas are allowed; what looks like a comment in a string is none."""
        text = '{\n  // one\n  "a": "http://x", /* two */\n  "b": [1, 2,],\n}'
        self.assertEqual(parse(text), Members([("a", "http://x"), ("b", [1, 2])]))

    def test_members_of_one_name(self) -> None:
        """Members of the same name are all kept, in JSON as in JSON with comments."""
        for text in ('{"a": 1, "a": 2}', '{"a": 1, "a": 2} // twice'):
            self.assertEqual(parse(text), Members([("a", 1), ("a", 2)]))


class ReadTests(SynchronousTestCase):
    """The errors of files that cannot be read."""

    def complaint(self, content: bytes) -> str:
        """What `read` says of a file with *content*, less the file's name."""
        path = self.mktemp()
        Path(path).write_bytes(content)
        message = str(self.assertRaises(UnreadableError, read, path))
        self.assertTrue(message.startswith(path), message)
        self.assertEqual(message.splitlines(), [message])
        return message.removeprefix(path)

    def test_missing(self) -> None:
        """A missing file is one line that names it."""
        path = self.mktemp()
        message = str(self.assertRaises(UnreadableError, read, path))
        self.assertEqual(message, f"{path}: cannot be read: No such file or directory")

    def test_directory(self) -> None:
        """A directory is not read."""
        path = self.mktemp()
        Path(path).mkdir()
        message = str(self.assertRaises(UnreadableError, read, path))
        self.assertEqual(message, f"{path}: cannot be read: Is a directory")

    def test_too_long(self) -> None:
        """A file without an end is not read to its end."""
        message = str(self.assertRaises(UnreadableError, read, "/dev/zero"))
        self.assertEqual(message, "/dev/zero: is longer than 8 MiB")

    def test_position(self) -> None:
        """A syntax error is reported with its line and column, in a file with comments too."""
        self.assertEqual(self.complaint(b'{\n  "a": }'), ":2:8: unexpected '}'")
        self.assertEqual(self.complaint(b'// c\n{\n  "a": 1\n  "b": 2\n}'), ":4:3: unexpected '\"'")

    def test_line_end_in_a_string(self) -> None:
        """A line end that is not allowed where it is still makes a message of one line."""
        self.assertEqual(self.complaint(b'{"a": "x\n"}'), ":1:9: unexpected '\\n'")

    def test_end(self) -> None:
        """A file that ends too early is reported as such."""
        self.assertEqual(self.complaint(b'{"a": 1'), ":1:8: unexpected end of input")

    def test_empty(self) -> None:
        """An empty file is refused, as no one means that."""
        for content in (b"", b"\xef\xbb\xbf \n"):
            self.assertEqual(self.complaint(content), ": is empty")

    def test_not_utf8(self) -> None:
        """Bytes that are not UTF-8 are reported with their position."""
        self.assertEqual(self.complaint(b'{"a": "\xff"}'), ": not UTF-8 at byte 7")

    def test_too_deep(self) -> None:
        """Nesting that Python cannot follow is an error like any other."""
        self.assertEqual(self.complaint(b"[" * 100_000), ": nested too deeply")

    def test_endless_number(self) -> None:
        """A number of more digits than Python converts is an error like any other."""
        self.assertIn("digits", self.complaint(b'{"a": ' + b"9" * 5000 + b"}"))

    def test_byte_order_mark(self) -> None:
        """The byte order mark that some editors write is not content."""
        path = self.mktemp()
        Path(path).write_bytes(b"\xef\xbb\xbf{}")
        self.assertEqual(read(path), Members())
