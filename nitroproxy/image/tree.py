"""A root file system as nodes by path, wherever their content is: what layers and directories are merged into.

A path is relative, without ``.``, ``..`` and empty parts. A symbolic link in the middle of a path is followed within
the tree, as a container engine does when it unpacks a layer; it never leads out of it.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, Final

from nitroproxy.image.errors import ImageError

#: Bounds of one tree: nodes, bytes of all file contents, bytes of a path (Linux's PATH_MAX), links in one path.
MOST_NODES: Final = 1_000_000
MOST_BYTES: Final = 1 << 32
_MOST_PATH_BYTES: Final = 4095
_MOST_LINKS: Final = 40


@dataclass(frozen=True)
class Node:
    """A file of any type.

    :ivar mode: type and permissions, as in `os.stat_result.st_mode`.
    :ivar size: of a regular file's content, in bytes.
    :ivar target: of a symbolic link.
    :ivar device: major and minor number of a device.
    :ivar content: opens a regular file's content, to be closed by the caller.
    :ivar time: of the last change, in seconds since 1970.
    :ivar link: equal for all names of one file that has several; None for a file with one name.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    time: int = 0
    content: Callable[[], BinaryIO] | None = None
    link: object = None


class Tree:
    """A file system's tree; its root is always there and has no node."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def size(self) -> int:
        """Bytes of all contents; of a file with several names once."""
        linked = {node.link: node.size for node in self._nodes.values() if node.link is not None}
        return sum(linked.values()) + sum(node.size for node in self._nodes.values() if node.link is None)

    def add(self, path: str, node: Node) -> str:
        """Put *node* at *path* in place of what is there; a directory keeps what is in it. Directories that are missing
        on the way are made. Returns where the node is now, links in *path* followed.

        :raises ImageError: *path* leads out of the tree, through a file, in circles, or the tree becomes too large.
        """
        place = self.resolve(path)
        there = self._nodes.get(place)
        if there is not None and stat.S_ISDIR(there.mode) and not stat.S_ISDIR(node.mode):
            self._remove_below(place)
        self._make_parents(place)
        self._nodes[place] = node
        if len(self._nodes) > MOST_NODES:
            raise ImageError(f"more than {MOST_NODES} files")
        return place

    def get(self, path: str) -> Node | None:
        """The node at *path*."""
        return self._nodes.get(self.resolve(path))

    def remove(self, path: str) -> None:
        """Remove what is at *path* and below it, if anything is."""
        place = self.resolve(path)
        self._nodes.pop(place, None)
        self._remove_below(place)

    def resolve(self, path: str) -> str:
        """*path* with the links in its directories followed; its last part is left as it is.

        :raises ImageError: as `add`.
        """
        if len(os.fsencode(path)) > _MOST_PATH_BYTES or "\0" in path:
            raise ImageError(f"{path[:80]!r}: a path has at most {_MOST_PATH_BYTES} bytes and no NUL")
        pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        done: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                if not links:
                    raise ImageError(f"{path!r}: leads out of the root file system")
                del done[-1:]
                continue
            done.append(part)
            node = self._nodes.get("/".join(done))
            if not pending or node is None or stat.S_ISDIR(node.mode):
                continue
            if not stat.S_ISLNK(node.mode):
                raise ImageError(f"{path!r}: {'/'.join(done)!r} is no directory")
            links += 1
            if links > _MOST_LINKS:
                raise ImageError(f"{path!r}: more than {_MOST_LINKS} symbolic links on the way")
            done = [] if node.target.startswith("/") else done[:-1]
            pending += [part for part in reversed(node.target.split("/")) if part not in ("", ".")]
        if not done:
            raise ImageError(f"{path!r}: names the root itself")
        return "/".join(done)

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Paths and nodes by the paths' bytes, so that a directory comes before what is in it."""
        for path in sorted(self._nodes, key=os.fsencode):
            yield path, self._nodes[path]

    def below(self, prefix: str) -> Tree:
        """A tree that has this one in the directory *prefix*."""
        tree = Tree()
        tree.add(prefix, Node(stat.S_IFDIR | 0o755))
        for path, node in self._nodes.items():
            tree._nodes[f"{prefix}/{path}"] = node
        return tree

    def unlink_singles(self) -> None:
        """Forget links of files that have one name only, as after the others were removed."""
        names = Counter(node.link for node in self._nodes.values() if node.link is not None)
        for path, node in self._nodes.items():
            if node.link is not None and names[node.link] == 1:
                self._nodes[path] = replace(node, link=None)

    def _make_parents(self, place: str) -> None:
        parent = place.rpartition("/")[0]
        if parent and parent not in self._nodes:
            self._make_parents(parent)
            self._nodes[parent] = Node(stat.S_IFDIR | 0o755)

    def _remove_below(self, place: str) -> None:
        for path in [path for path in self._nodes if path.startswith(f"{place}/")]:
            del self._nodes[path]
