"""A tree keeps every path inside the root."""

from __future__ import annotations

import stat

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image import tree as tree_module
from nitroproxy.image.errors import ImageError
from nitroproxy.image.tree import Node, Tree

FILE = Node(stat.S_IFREG | 0o644, size=3)
DIRECTORY = Node(stat.S_IFDIR | 0o755)


def link(target: str) -> Node:
    """A symbolic link."""
    return Node(stat.S_IFLNK | 0o777, target=target)


def paths(tree: Tree) -> list[str]:
    """The paths of *tree*, in its order."""
    return [path for path, _ in tree.walk()]


class TreeTests(SynchronousTestCase):
    """Nodes and their places."""

    def setUp(self) -> None:
        self.tree = Tree()

    def test_parents(self) -> None:
        """Directories on the way are made, and come before what is in them."""
        self.tree.add("usr/bin/python3", FILE)
        self.tree.add("usr/bin-x", FILE)
        self.assertEqual(paths(self.tree), ["usr", "usr/bin", "usr/bin-x", "usr/bin/python3"])

    def test_links(self) -> None:
        """A link in a path is followed within the root, as a container engine does, whether absolute or relative."""
        self.tree.add("bin", link("usr/bin"))
        self.tree.add("lib/up", link("/../../usr/lib"))
        self.assertEqual(self.tree.add("bin/sh", FILE), "usr/bin/sh")
        self.assertEqual(self.tree.add("lib/up/x", FILE), "usr/lib/x")
        self.assertEqual(self.tree.get("/bin/sh"), FILE)
        self.assertEqual(self.tree.get("bin"), link("usr/bin"))

    def test_outside(self) -> None:
        """A path that leads out of the root, is too long or has a NUL is refused."""
        for path in ("../etc/passwd", "a/../../b", "a/..", "", "/", ".", "x\0y", "a/" * 3000 + "b"):
            self.assertRaises(ImageError, self.tree.add, path, FILE)
        self.assertEqual(len(self.tree), 0)

    def test_circles(self) -> None:
        """Links that lead in circles are an error, not a loop."""
        self.tree.add("a", link("b"))
        self.tree.add("b", link("a"))
        self.assertIn("symbolic links", str(self.assertRaises(ImageError, self.tree.add, "a/x", FILE)))

    def test_through_a_file(self) -> None:
        """A file has nothing below it."""
        self.tree.add("etc", FILE)
        self.assertIn("no directory", str(self.assertRaises(ImageError, self.tree.add, "etc/passwd", FILE)))

    def test_replaced(self) -> None:
        """A directory given again keeps its content; a file in its place does not."""
        self.tree.add("var/log/x", FILE)
        self.tree.add("var/log", DIRECTORY)
        self.assertIn("var/log/x", paths(self.tree))
        self.tree.add("var/log", link("/tmp"))
        self.assertEqual(paths(self.tree), ["var", "var/log"])

    def test_removed(self) -> None:
        """`remove` takes what is below with it, and not what is beside."""
        for path in ("a/b/c", "a/bc", "ab"):
            self.tree.add(path, FILE)
        self.tree.remove("a/b")
        self.assertEqual(paths(self.tree), ["a", "a/bc", "ab"])
        self.tree.remove("a")
        self.tree.remove("nothing")
        self.assertEqual(paths(self.tree), ["ab"])

    def test_size(self) -> None:
        """A file with several names counts once; one that lost its other names is like any."""
        same = Node(stat.S_IFREG, size=5, link=1)
        self.tree.add("a", same)
        self.tree.add("b", same)
        self.tree.add("c", Node(stat.S_IFREG, size=2, link=2))
        self.assertEqual(self.tree.size, 7)
        self.tree.unlink_singles()
        self.assertEqual([node.link for _, node in self.tree.walk()], [1, 1, None])

    def test_below(self) -> None:
        """A tree can be put into a directory of another."""
        self.tree.add("a/b", FILE)
        self.assertEqual(paths(self.tree.below("rootfs")), ["rootfs", "rootfs/a", "rootfs/a/b"])

    def test_bound(self) -> None:
        """A tree has a limit of files."""
        self.patch(tree_module, "MOST_NODES", 2)
        self.tree.add("a/b", FILE)
        self.assertRaises(ImageError, self.tree.add, "c", FILE)

    @given(st.lists(st.tuples(st.text("ab/.", max_size=8), st.none() | st.text("ab/.", min_size=1, max_size=8))))
    def test_any_paths(self, entries: list[tuple[str, str | None]]) -> None:
        """Whatever is added, every path stays inside, and every parent is a directory that comes first."""
        tree = Tree()
        for path, target in entries:
            try:
                tree.add(path, FILE if target is None else link(target))
            except ImageError:
                continue
        seen = {""}
        for path, node in tree.walk():
            self.assertNotIn("..", path.split("/"))
            self.assertIn(path.rpartition("/")[0], seen)
            if stat.S_ISDIR(node.mode):
                seen.add(path)
