"""Applies tar archives to a tree: one for a root file system, several for the layers of a container image.

A layer removes what the ones below it have with whiteouts (OCI image specification, "Layer Filesystem Changeset"):
``.wh.NAME`` removes NAME, ``.wh..wh..opq`` empties its directory of what lower layers put there.
"""

from __future__ import annotations

import stat
import tarfile
import zlib
from functools import partial
from typing import BinaryIO, Final

from nitroproxy.image.errors import ImageError
from nitroproxy.image.slices import slice_of
from nitroproxy.image.tree import MOST_BYTES, Node, Tree

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_TYPES: Final = {
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}


def apply_layer(tree: Tree, file: BinaryIO, *, whiteouts: bool) -> None:
    """Put what is in the tar archive *file* into *tree*. The nodes' contents are read from *file* later: it stays open.

    :param file: not compressed, with a descriptor of its own.
    :param whiteouts: whether names that begin with ``.wh.`` remove files, as in a container image's layer.
    :raises ImageError: the archive is damaged, or a name or link in it leads out of the root.
    """
    size = tree.size
    placed: set[str] = set()
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:", errorlevel=2) as archive:
            for entry in archive:
                size += entry.size
                if size > MOST_BYTES:
                    raise ImageError(f"more than {MOST_BYTES} bytes in all")
                _apply(tree, file, entry, placed if whiteouts else None)
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OSError) as error:
        raise ImageError(f"damaged tar archive: {error}") from error


def _apply(tree: Tree, file: BinaryIO, entry: tarfile.TarInfo, placed: set[str] | None) -> None:
    path = entry.name.strip("/")
    if path in ("", "."):
        return
    parent, _, name = path.rpartition("/")
    if placed is not None and name == _OPAQUE:
        _empty(tree, parent, placed)
    elif placed is not None and name.startswith(_WHITEOUT):
        tree.remove(f"{parent}/{name.removeprefix(_WHITEOUT)}" if parent else name.removeprefix(_WHITEOUT))
    else:
        place = tree.add(path, _node(tree, file, entry))
        if placed is not None:
            placed.add(place)


def _empty(tree: Tree, directory: str, placed: set[str]) -> None:
    """Remove what lower layers put into *directory*; what this layer has *placed* there stays, whichever came first."""
    for path, _ in list(tree.walk()):
        inside = not directory or path.startswith(f"{tree.resolve(directory)}/")
        if inside and not any(mine == path or mine.startswith(f"{path}/") for mine in placed):
            tree.remove(path)


def _node(tree: Tree, file: BinaryIO, entry: tarfile.TarInfo) -> Node:
    time = int(entry.mtime)
    permissions = stat.S_IMODE(entry.mode)
    if entry.isreg() and entry.sparse is None:
        content = partial(slice_of, file.fileno(), entry.offset_data, entry.size)
        # Every regular file can get other names later: `Tree.unlink_singles` drops the links of those that did not.
        return Node(
            stat.S_IFREG | permissions, entry.uid, entry.gid, entry.size, time=time, content=content, link=object()
        )
    if entry.islnk():
        linked = tree.get(entry.linkname)
        if linked is None or stat.S_ISDIR(linked.mode):
            raise ImageError(f"{entry.name!r}: a hard link to {entry.linkname!r}, which is no file of the archive")
        return linked
    if entry.type not in _TYPES:
        raise ImageError(f"{entry.name!r}: entries of type {entry.type!r} are not supported")
    device = (entry.devmajor, entry.devminor) if entry.isdev() and not entry.isfifo() else (0, 0)
    target = entry.linkname if entry.issym() else ""
    return Node(_TYPES[entry.type] | permissions, entry.uid, entry.gid, target=target, device=device, time=time)
