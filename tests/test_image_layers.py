"""Layers: tar archives on top of each other, with whiteouts, and hostile ones."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Sequence
from typing import BinaryIO

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image import layers as layers_module
from nitroproxy.image.errors import ImageError
from nitroproxy.image.layers import apply_layer
from nitroproxy.image.tree import Tree
from tests.test_image_tree import paths

#: A name, and a file's content or an entry of another type.
Entry = tuple[str, bytes | tarfile.TarInfo]


def tar(entries: Sequence[Entry]) -> bytes:
    """A tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:") as archive:
        for name, what in entries:
            if isinstance(what, bytes):
                info = tarfile.TarInfo(name)
                info.size, info.uid, info.mode = len(what), 5, 0o640
                archive.addfile(info, io.BytesIO(what))
            else:
                what.name = name
                archive.addfile(what)
    return out.getvalue()


def other(kind: bytes, target: str = "") -> tarfile.TarInfo:
    """An entry that is no regular file."""
    info = tarfile.TarInfo()
    info.type, info.linkname, info.mode = kind, target, 0o755
    return info


class LayerTests(SynchronousTestCase):
    """`apply_layer`."""

    def setUp(self) -> None:
        self.tree = Tree()

    def _file(self, raw: bytes) -> BinaryIO:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by addCleanup
        self.addCleanup(file.close)
        file.write(raw)
        file.flush()
        file.seek(0)
        return file

    def _apply(self, *entries: Entry, whiteouts: bool = True) -> None:
        apply_layer(self.tree, self._file(tar(entries)), whiteouts=whiteouts)

    def _content(self, path: str) -> bytes:
        node = self.tree.get(path)
        assert node is not None and node.content is not None
        with node.content() as file:
            return file.read()

    def test_entries(self) -> None:
        """Files keep owner, permissions and content; links, directories and pipes their type."""
        self._apply(
            ("./etc/x", b"content"), ("d/", other(tarfile.DIRTYPE)), ("p", other(tarfile.FIFOTYPE)),
            ("l", other(tarfile.SYMTYPE, "etc/x")), ("h", other(tarfile.LNKTYPE, "./etc/x")),
        )  # fmt: skip
        self.assertEqual(paths(self.tree), ["d", "etc", "etc/x", "h", "l", "p"])
        node = self.tree.get("etc/x")
        assert node is not None
        self.assertEqual((node.uid, node.mode & 0o7777, self._content("h")), (5, 0o640, b"content"))
        self.assertIs(self.tree.get("h"), node)

    def test_whiteouts(self) -> None:
        """A whiteout removes what a lower layer has, and only in a container image's layer."""
        self._apply(("a/x", b"1"), ("a/y", b"1"), ("b/z", b"1"))
        self._apply(("a/.wh.x", b""), (".wh.b", b""))
        self.assertEqual(paths(self.tree), ["a", "a/y"])
        self._apply(("a/.wh.y", b""), whiteouts=False)
        self.assertEqual(paths(self.tree), ["a", "a/.wh.y", "a/y"])

    def test_opaque(self) -> None:
        """An opaque whiteout empties the directory of lower layers' files, wherever it stands among the layer's own."""
        for order in (0, 1, 2):
            self.tree = Tree()
            self._apply(("a/old", b"1"), ("a/b/old", b"1"), ("ab", b"1"))
            mine: list[Entry] = [("a/new", b"2"), ("a/b/new", b"2")]
            mine.insert(order, ("a/.wh..wh..opq", b""))
            self._apply(*mine)
            self.assertEqual(paths(self.tree), ["a", "a/b", "a/b/new", "a/new", "ab"])

    def test_through_links(self) -> None:
        """An entry behind a link of a lower layer lands where the link leads, inside the root."""
        self._apply(("bin", other(tarfile.SYMTYPE, "/usr/bin")))
        self._apply(("bin/sh", b"shell"))
        self.assertEqual(self._content("usr/bin/sh"), b"shell")

    def test_hostile(self) -> None:
        """Names that lead out, links to nothing or to directories, and unknown types are refused."""
        for entry in (
            ("../x", b""),
            ("a/../../x", b""),
            ("h", other(tarfile.LNKTYPE, "../../etc/shadow")),
            ("h", other(tarfile.LNKTYPE, "missing")),
            ("x", other(b"Z")),
        ):
            self.tree = Tree()
            self.assertRaises(ImageError, self._apply, entry)

    def test_damaged(self) -> None:
        """A tar archive that was cut off is refused, not taken for a shorter one."""
        raw = tar([("a", bytes(2000)), ("b", b"1")])
        for size in (700, 1024, 2000):
            file = self._file(raw[:size])
            self.assertRaises(ImageError, apply_layer, Tree(), file, whiteouts=True)
        self.assertRaises(ImageError, apply_layer, Tree(), self._file(b"no tar" * 99), whiteouts=True)

    def test_bound(self) -> None:
        """A layer that unpacks to more than the bound is refused by what its headers say."""
        self.patch(layers_module, "MOST_BYTES", 10)
        self.assertIn("more than 10", str(self.assertRaises(ImageError, self._apply, ("a", bytes(11)))))

    @given(st.binary(max_size=600), st.integers(0, 511))
    def test_noise(self, noise: bytes, at: int) -> None:
        """Whatever the bytes are, only ImageError comes out."""
        good = tar([("a/b", b"1"), ("c", b"2")])
        for raw in (noise, good[:at] + noise[:40] + good[at + len(noise[:40]) :]):
            file = self._file(raw)
            try:
                apply_layer(Tree(), file, whiteouts=True)
            except ImageError:
                continue
