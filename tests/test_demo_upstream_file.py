"""The file in which the local upstream says where it listens."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.demo.upstream_file import read_upstream_file, write_upstream_file
from tests.test_demo_cases import LOCAL


class UpstreamFileTests(SynchronousTestCase):
    """The file of the local upstream."""

    def test_what_is_written_is_read(self) -> None:
        """The file holds all that was written and leaves no other file behind."""
        directory = Path(self.mktemp())
        directory.mkdir()
        write_upstream_file(directory / "upstream.json", LOCAL)
        self.assertEqual(read_upstream_file(directory / "upstream.json"), LOCAL)
        self.assertEqual([path.name for path in directory.iterdir()], ["upstream.json"])

    def test_another_file_is_refused(self) -> None:
        """What is not such a file is refused with its name."""
        path = Path(self.mktemp())
        for text in ("", "{}", "[]", '{"https": "443"}', "{"):
            path.write_text(text)
            self.assertIn(str(path), str(self.assertRaises(ValueError, read_upstream_file, path)))
