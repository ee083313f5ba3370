"""A root file system from a directory."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image import directory as directory_module
from nitroproxy.image.directory import directory_tree
from nitroproxy.image.errors import ImageError


class DirectoryTests(SynchronousTestCase):
    """`directory_tree`."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        (self.root / "usr/bin").mkdir(parents=True)
        (self.root / "usr/bin/a").write_bytes(b"content")
        (self.root / "usr/bin/a").chmod(0o4750)

    def test_nodes(self) -> None:
        """Files, links, pipes and hard links are taken with their permissions, and belong to root."""
        os.link(self.root / "usr/bin/a", self.root / "usr/bin/b")
        (self.root / "bin").symlink_to("usr/bin")
        os.mkfifo(self.root / "pipe")
        nodes = dict(directory_tree(self.root).walk())
        self.assertEqual(list(nodes), ["bin", "pipe", "usr", "usr/bin", "usr/bin/a", "usr/bin/b"])
        self.assertEqual(nodes["bin"].target, "usr/bin")
        self.assertEqual(nodes["usr/bin/a"].mode, stat.S_IFREG | 0o4750)
        self.assertEqual(nodes["usr/bin/a"].link, nodes["usr/bin/b"].link)
        self.assertEqual({(node.uid, node.gid) for node in nodes.values()}, {(0, 0)})
        assert nodes["usr/bin/a"].content is not None
        with nodes["usr/bin/a"].content() as file:
            self.assertEqual(file.read(), b"content")

    def test_links_are_not_followed(self) -> None:
        """What a link points to outside is not taken, also when a file was replaced by one after the walk."""
        secret = Path(self.mktemp())
        secret.write_bytes(b"secret")
        (self.root / "link").symlink_to(secret.absolute())
        nodes = dict(directory_tree(self.root).walk())
        self.assertEqual(nodes["link"].size, 0)
        (self.root / "usr/bin/a").unlink()
        (self.root / "usr/bin/a").symlink_to(secret.absolute())
        assert nodes["usr/bin/a"].content is not None
        self.assertRaises(ImageError, nodes["usr/bin/a"].content)

    def test_sockets(self) -> None:
        """Sockets are left out: nothing in an enclave listens on them."""
        with socket.socket(socket.AF_UNIX) as listening:
            before = os.getcwd()
            os.chdir(self.root)  # a socket's path has at most 107 bytes
            try:
                listening.bind("socket")
            finally:
                os.chdir(before)
        self.assertNotIn("socket", dict(directory_tree(self.root).walk()))

    def test_refused(self) -> None:
        """An empty or missing directory, and one above the bound, are refused."""
        empty = Path(self.mktemp())
        empty.mkdir()
        self.assertIn("empty", str(self.assertRaises(ImageError, directory_tree, empty)))
        self.assertIn("No such", str(self.assertRaises(ImageError, directory_tree, empty / "missing")))
        self.patch(directory_module, "MOST_BYTES", 6)
        self.assertIn("at most 6", str(self.assertRaises(ImageError, directory_tree, self.root)))
