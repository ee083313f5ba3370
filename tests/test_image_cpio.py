"""Ramdisks: the same bytes for the same tree, and what other readers of cpio make of them."""

from __future__ import annotations

import gzip
import io
import shutil
import stat
import subprocess
from functools import partial
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from nitroproxy.image.cpio import write_ramdisk
from nitroproxy.image.errors import ImageError
from nitroproxy.image.tree import Node, Tree

Entry = tuple[str, dict[str, int], bytes]
_FIELDS = [
    "ino",
    "mode",
    "uid",
    "gid",
    "nlink",
    "mtime",
    "size",
    "major",
    "minor",
    "rmajor",
    "rminor",
    "namesize",
    "check",
]


def regular(data: bytes, *, link: object = None, mode: int = 0o644) -> Node:
    """A file with *data*."""
    return Node(stat.S_IFREG | mode, size=len(data), content=partial(io.BytesIO, data), link=link)


def entries(raw: bytes) -> list[Entry]:
    """The entries of a newc archive, without its trailer."""
    found: list[Entry] = []
    at = 0
    while True:
        assert raw[at : at + 6] == b"070701", raw[at : at + 6]
        values = [int(raw[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        fields = dict(zip(_FIELDS, values, strict=True))
        start = at + 110
        name = raw[start : start + fields["namesize"] - 1].decode("utf-8", "surrogateescape")
        data = start + fields["namesize"] + -(start + fields["namesize"]) % 4
        at = data + fields["size"] + -fields["size"] % 4
        if name == "TRAILER!!!":
            assert not raw[at:].strip(b"\0") and len(raw) % 512 == 0
            return found
        found.append((name, fields, raw[data : data + fields["size"]]))


def written(tree: Tree) -> bytes:
    """The ramdisk of *tree*, uncompressed."""
    out = io.BytesIO()
    write_ramdisk(out, tree, compress=False)
    return out.getvalue()


class RamdiskTests(SynchronousTestCase):
    """`write_ramdisk`."""

    def _tree(self) -> Tree:
        tree = Tree()
        tree.add("init", regular(b"#!/bin/sh\n", mode=0o755))
        tree.add("bin", Node(stat.S_IFLNK | 0o777, target="usr/bin", time=9))
        tree.add("usr/bin/b", regular(b"twice", link=1))
        tree.add("usr/bin/a", regular(b"twice", link=1))
        tree.add("dev/console", Node(stat.S_IFCHR | 0o600, device=(5, 1)))
        tree.add("home/x", Node(stat.S_IFREG | 0o600, uid=7, gid=8, content=io.BytesIO))
        return tree

    def test_entries(self) -> None:
        """Types, permissions, owners, contents, links and devices are written, and times up to the latest."""
        out = io.BytesIO()
        write_ramdisk(out, self._tree(), time=5, compress=False)
        found = {name: (fields, data) for name, fields, data in entries(out.getvalue())}
        self.assertEqual(found["init"][1], b"#!/bin/sh\n")
        self.assertEqual(found["init"][0]["mode"], stat.S_IFREG | 0o755)
        self.assertEqual(found["bin"][1], b"usr/bin")
        self.assertEqual((found["home/x"][0]["uid"], found["home/x"][0]["gid"]), (7, 8))
        self.assertEqual((found["dev/console"][0]["rmajor"], found["dev/console"][0]["rminor"]), (5, 1))
        self.assertEqual((found["bin"][0]["mtime"], found["init"][0]["mtime"]), (5, 0))

    def test_hard_links(self) -> None:
        """Names of one file share an inode; the first carries the content, the others none."""
        found = {name: (fields, data) for name, fields, data in entries(written(self._tree()))}
        (first, data), (second, nothing) = found["usr/bin/a"], found["usr/bin/b"]
        self.assertEqual((first["ino"], first["nlink"], data), (second["ino"], 2, b"twice"))
        self.assertEqual((second["nlink"], nothing), (2, b""))
        others = [fields["ino"] for name, (fields, _) in found.items() if name != "usr/bin/b"]
        self.assertEqual(len(set(others)), len(others))

    def test_reproducible(self) -> None:
        """The order in which files were added does not matter, compressed or not; no time is in the gzip header."""
        one, other = self._tree(), Tree()
        for path, node in reversed(list(one.walk())):
            other.add(path, node)
        first, second = io.BytesIO(), io.BytesIO()
        write_ramdisk(first, one)
        write_ramdisk(second, other)
        self.assertEqual(first.getvalue(), second.getvalue())
        self.assertEqual(first.getvalue()[4:8], bytes(4))
        self.assertEqual(gzip.decompress(first.getvalue()), written(one))

    def test_short_content(self) -> None:
        """A file that has become shorter is an error that names it."""
        tree = Tree()
        tree.add("etc/x", Node(stat.S_IFREG, size=9, content=partial(io.BytesIO, b"short")))
        self.assertIn("etc/x: ", str(self.assertRaises(ImageError, written, tree)))

    def test_numbers(self) -> None:
        """An owner that the format cannot say is refused."""
        tree = Tree()
        tree.add("x", Node(stat.S_IFIFO, uid=1 << 32))
        self.assertRaises(ImageError, written, tree)

    @given(st.dictionaries(st.text("abü", min_size=1, max_size=9), st.binary(max_size=40), max_size=9))
    def test_any_tree(self, files: dict[str, bytes]) -> None:
        """Whatever names and contents are written, they are read again, in the order of the names' bytes."""
        tree = Tree()
        for name, data in files.items():
            tree.add(name, regular(data))
        found = [(name, data) for name, _, data in entries(written(tree))]
        self.assertEqual(found, sorted(files.items(), key=lambda item: item[0].encode()))

    def test_gnu_cpio(self) -> None:
        """GNU cpio unpacks the ramdisk to the same files."""
        program = shutil.which("cpio")
        if program is None:
            raise SkipTest("no cpio here")
        tree = Tree()
        tree.add("usr/b", regular(b"twice", link=1))
        tree.add("usr/a", regular(b"twice", link=1))
        tree.add("usr/l", Node(stat.S_IFLNK | 0o777, target="a"))
        directory = Path(self.mktemp())
        directory.mkdir()
        command = [program, "-idm", "--quiet"]
        subprocess.run(command, cwd=directory, input=written(tree), check=True)
        self.assertEqual((directory / "usr/l").read_bytes(), b"twice")
        self.assertTrue((directory / "usr/a").samefile(directory / "usr/b"))
