"""A root file system from a directory. All files become root's: their owner on the building machine says nothing about
the enclave. A tar archive keeps its owners.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from nitroproxy.image.errors import ImageError
from nitroproxy.image.tree import MOST_BYTES, Node, Tree


def directory_tree(root: Path) -> Tree:
    """The tree below *root*. Links are kept as they are; sockets are left out.

    :raises ImageError: naming the file that cannot be read.
    """
    tree = Tree()
    try:
        for path in _walk(root):
            info = os.lstat(path)
            if not stat.S_ISSOCK(info.st_mode):
                tree.add(os.path.relpath(path, root), _node(path, info))
    except OSError as error:
        raise ImageError(f"{error.filename}: {error.strerror}") from error
    if not len(tree):
        raise ImageError(f"{root}: the directory is empty")
    if tree.size > MOST_BYTES:
        raise ImageError(f"{root}: {tree.size} bytes, at most {MOST_BYTES} are allowed")
    tree.unlink_singles()
    return tree


def _walk(root: Path) -> Iterator[str]:
    for entry in os.scandir(root):
        yield entry.path
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))


def _node(path: str, info: os.stat_result) -> Node:
    mode, time = info.st_mode, int(info.st_mtime)
    if stat.S_ISREG(mode):
        link = (info.st_dev, info.st_ino) if info.st_nlink > 1 else None
        return Node(mode, size=info.st_size, time=time, content=partial(_open, path), link=link)
    if stat.S_ISLNK(mode):
        return Node(mode, time=time, target=os.readlink(path))
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return Node(mode, device=(os.major(info.st_rdev), os.minor(info.st_rdev)), time=time)
    return Node(mode, time=time)


def _open(path: str) -> BinaryIO:
    try:
        return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from error
