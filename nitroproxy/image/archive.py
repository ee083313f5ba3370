"""A root file system from a file: a tar archive, plain or with gzip, or an archive of a container image, as
``buildah push IMAGE oci-archive:FILE`` and ``docker save`` write it.

Blobs are checked against their digests. Compressed layers are unpacked to unnamed temporary files, within bounds.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from nitroproxy.image.errors import ImageError
from nitroproxy.image.layers import apply_layer
from nitroproxy.image.layout import Architecture
from nitroproxy.image.reader import PIECE_BYTES, open_regular, pieces
from nitroproxy.image.slices import Slice, slice_of
from nitroproxy.image.tree import MOST_BYTES, Tree

#: Bytes of an index, manifest or configuration, and entries in an image's archive.
_MOST_DOCUMENT: Final = 4 << 20
_MOST_ENTRIES: Final = 4096
_MOST_LAYERS: Final = 256
_GZIP: Final = b"\x1f\x8b"
#: zlib's number for a gzip header.
_GZIP_FORMAT: Final = 16 + zlib.MAX_WBITS
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_DIGEST: Final = "sha256:"
_ARCHITECTURES: Final = {"amd64": Architecture.X86_64, "arm64": Architecture.AARCH64}


_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Root:
    """A root file system and what its image says about starting it.

    :ivar command: the entry point and its arguments; empty when the source says nothing.
    :ivar environment: ``NAME=VALUE`` entries.
    :ivar architecture: None when the source does not say.
    """

    tree: Tree
    command: Sequence[str] = ()
    environment: Sequence[str] = ()
    architecture: Architecture | None = None


def read_root(path: Path, stack: ExitStack) -> Root:
    """The root file system in the archive at *path*.

    :param stack: closes the files that the tree's nodes read from.
    :raises ImageError: naming the file and what is wrong with it.
    """
    try:
        file = _plain(stack.enter_context(open_regular(path)), stack)
        blobs = _blobs(file)
        if "index.json" in blobs:
            return _oci(_Archive(file, blobs), stack)
        if "manifest.json" in blobs:
            return _docker(_Archive(file, blobs), stack)
        tree = Tree()
        apply_layer(tree, file, whiteouts=False)
        if not len(tree):
            raise ImageError("the archive is empty")
        tree.unlink_singles()
        return Root(tree)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


@dataclass(frozen=True)
class _Archive:
    """A container image's archive: where its members are."""

    file: BinaryIO
    blobs: Mapping[str, tuple[int, int]]

    def open(self, name: str) -> BinaryIO:
        if name not in self.blobs:
            raise ImageError(f"{name} is missing in the image's archive")
        return slice_of(self.file.fileno(), *self.blobs[name])

    def document(self, name: str) -> Any:
        size = self.blobs.get(name, (0, 0))[1]
        if size > _MOST_DOCUMENT:
            raise ImageError(f"{name}: {size} bytes, at most {_MOST_DOCUMENT} are allowed")
        raw = b"".join(pieces(self.open(name), size))
        if name.startswith("blobs/sha256/") and hashlib.sha256(raw).hexdigest() != name.rpartition("/")[2]:
            raise ImageError(f"{name}: its content has another digest")
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise ImageError(f"{name}: not JSON") from None


def _blobs(file: BinaryIO) -> dict[str, tuple[int, int]]:
    """Offset and size of an image archive's members; empty when the first entries show that it is something else."""
    found: dict[str, tuple[int, int]] = {}
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:", errorlevel=2) as archive:
            for number, entry in enumerate(archive):
                if number == _MOST_ENTRIES:
                    return {}
                if entry.isreg() and entry.sparse is None:
                    found[entry.name.removeprefix("./")] = (entry.offset_data, entry.size)
                elif entry.issym() and entry.name.endswith("/layer.tar"):  # `docker save` shares equal layers like this
                    base = os.path.normpath(os.path.join(os.path.dirname(entry.name), entry.linkname))
                    if base in found:
                        found[entry.name] = found[base]
    except (tarfile.TarError, ValueError, OSError) as error:
        raise ImageError(f"not a tar archive, or a damaged one: {error}") from error
    return found


def _oci(archive: _Archive, stack: ExitStack) -> Root:
    index = archive.document("index.json")
    manifests = _get(index, "manifests", list)
    if len(manifests) != 1:
        raise ImageError(f"index.json: expected one image, got {len(manifests)}; save one image for one platform")
    manifest = archive.document(_blob(manifests[0]))
    if "manifests" in manifest:
        raise ImageError("the image is for several platforms; save it for one")
    config = archive.document(_blob(_get(manifest, "config", dict)))
    return _merge(archive, config, [_blob(layer) for layer in _get(manifest, "layers", list)], stack)


def _docker(archive: _Archive, stack: ExitStack) -> Root:
    images = archive.document("manifest.json")
    if not isinstance(images, list) or len(images) != 1 or not isinstance(images[0], dict):
        raise ImageError("manifest.json: expected one image; save one")
    config = archive.document(_get(images[0], "Config", str))
    return _merge(archive, config, _get(images[0], "Layers", list), stack)


def _merge(archive: _Archive, config: Any, names: Sequence[Any], stack: ExitStack) -> Root:
    ids = _get(_get(config, "rootfs", dict), "diff_ids", list)
    if len(ids) != len(names) or not 1 <= len(names) <= _MOST_LAYERS:
        raise ImageError(f"{len(names)} layers and {len(ids)} digests: expected as many, 1 to {_MOST_LAYERS}")
    tree = Tree()
    for name, digest in zip(names, ids, strict=True):
        if not isinstance(name, str):
            raise ImageError("the names of the layers must be strings")
        layer = _plain(archive.open(name), stack)
        _check_digest(name, layer, digest)
        try:
            apply_layer(tree, layer, whiteouts=True)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from error
    tree.unlink_singles()
    started = config.get("config") or {}
    entry, arguments, environment = (_strings(started, name) for name in ("Entrypoint", "Cmd", "Env"))
    return Root(tree, [*entry, *arguments], environment, _ARCHITECTURES.get(str(config.get("architecture"))))


def _strings(document: Any, name: str) -> list[str]:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, list | None) or not all(isinstance(one, str) for one in value or ()):
        raise ImageError(f"{name}: expected an array of strings")
    return value or []


def _check_digest(name: str, layer: BinaryIO, wanted: Any) -> None:
    digest = hashlib.sha256()
    size = layer.seek(0, os.SEEK_END)
    layer.seek(0)
    for piece in pieces(layer, size):
        digest.update(piece)
    layer.seek(0)
    if wanted != _DIGEST + digest.hexdigest():
        raise ImageError(f"{name}: its content has another digest than {wanted}")


def _plain(file: BinaryIO, stack: ExitStack) -> BinaryIO:
    """*file* as a real file without compression: as it is, or copied to a temporary one.

    :raises ImageError: it unpacks to more than `MOST_BYTES`, is damaged, or its compression is not supported.
    """
    start = file.read(4)
    file.seek(0)
    if start == _ZSTD:
        raise ImageError("compressed with zstd, which is not supported: save the image with gzip or uncompressed")
    if not start.startswith(_GZIP) and not isinstance(file, Slice):
        return file
    plain: BinaryIO = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
    written = 0
    for piece in _unpacked(file) if start.startswith(_GZIP) else iter(lambda: file.read(PIECE_BYTES), b""):
        written += len(piece)
        if written > MOST_BYTES:
            raise ImageError(f"it unpacks to more than {MOST_BYTES} bytes")
        plain.write(piece)
    plain.flush()
    plain.seek(0)
    return plain


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    """The content of a gzip file, which may have several members."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    engine = zlib.decompressobj(_GZIP_FORMAT)
    try:
        for piece in pieces(file, size):
            rest = piece
            while rest:
                if engine.eof:  # another member follows, or the padding of a tape
                    rest = rest.lstrip(b"\0")
                    engine = zlib.decompressobj(_GZIP_FORMAT) if rest else engine
                    continue
                yield engine.decompress(rest, PIECE_BYTES)
                rest = engine.unused_data if engine.eof else engine.unconsumed_tail
    except zlib.error as error:
        raise ImageError(f"damaged gzip data: {error}") from error
    if not engine.eof:
        raise ImageError("damaged gzip data: it is cut off")


def _blob(descriptor: Any) -> str:
    digest = _get(descriptor, "digest", str)
    if not digest.startswith(_DIGEST) or not digest.removeprefix(_DIGEST).isalnum():
        raise ImageError(f"digest: expected {_DIGEST} and hexadecimal digits, got {digest!r}")
    return f"blobs/sha256/{digest.removeprefix(_DIGEST)}"


def _get(document: Any, name: str, kind: type[_Kind]) -> _Kind:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, kind):
        raise ImageError(f"{name}: missing in the image's archive, or of another type than {kind.__name__}")
    return value
