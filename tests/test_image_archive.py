"""Root file systems from archives: tar, and images as buildah and docker save them."""

from __future__ import annotations

import gzip
import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image import archive as archive_module
from nitroproxy.image.archive import Root, read_root
from nitroproxy.image.errors import ImageError
from nitroproxy.image.layout import Architecture
from tests.test_image_layers import Entry, other, tar
from tests.test_image_tree import paths

LOWER = tar([("bin/sh", b"shell"), ("etc/motd", b"hello")])
UPPER = tar([("app/main", b"program"), ("etc/.wh.motd", b"")])
CONFIG = {"Entrypoint": ["/app/main"], "Cmd": ["serve"], "Env": ["PATH=/bin"]}


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def oci(*layers: bytes, packed: bool = True, **changes: Any) -> list[Entry]:
    """The members of an OCI archive; *changes* replace the documents' fields."""
    blobs = [gzip.compress(layer, mtime=0) if packed else layer for layer in layers]
    config: dict[str, Any] = {"architecture": "amd64", "config": CONFIG}
    config["rootfs"] = {"diff_ids": [f"sha256:{_digest(layer)}" for layer in layers]}
    config.update(changes.get("config", {}))
    raw_config = json.dumps(config).encode()
    manifest = {
        "config": {"digest": f"sha256:{_digest(raw_config)}"},
        "layers": [{"digest": f"sha256:{_digest(blob)}"} for blob in blobs],
    }
    manifest.update(changes.get("manifest", {}))
    raw_manifest = json.dumps(manifest).encode()
    index = {"manifests": [{"digest": f"sha256:{_digest(raw_manifest)}"}]}
    index.update(changes.get("index", {}))
    everything = [*blobs, raw_config, raw_manifest]
    return [
        *((f"blobs/sha256/{_digest(blob)}", blob) for blob in everything),
        ("index.json", json.dumps(index).encode()),
    ]


class ArchiveTests(SynchronousTestCase):
    """`read_root`."""

    def setUp(self) -> None:
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.path = Path(self.mktemp())

    def _read(self, raw: bytes) -> Root:
        self.path.write_bytes(raw)
        return read_root(self.path, self.stack)

    def _refused(self, raw: bytes, words: str) -> None:
        error = str(self.assertRaises(ImageError, self._read, raw))
        self.assertIn(words, error)
        self.assertTrue(error.startswith(f"{self.path}: "))

    def _content(self, root: Root, path: str) -> bytes:
        node = root.tree.get(path)
        assert node is not None and node.content is not None
        with node.content() as file:
            return file.read()

    def test_tar(self) -> None:
        """A tar archive, plain, with gzip or in several gzip members, is the root; it says nothing about a command."""
        half = len(LOWER) // 2
        for raw in (
            LOWER,
            gzip.compress(LOWER),
            gzip.compress(LOWER[:half]) + gzip.compress(LOWER[half:]) + bytes(512),
        ):
            root = self._read(raw)
            self.assertEqual(paths(root.tree), ["bin", "bin/sh", "etc", "etc/motd"])
            self.assertEqual(self._content(root, "bin/sh"), b"shell")
            self.assertEqual((root.command, root.architecture), ((), None))
            self.assertEqual({node.link for _, node in root.tree.walk()}, {None})

    def test_oci(self) -> None:
        """Layers are merged in order; command, environment and architecture are the image's."""
        for packed in (True, False):
            root = self._read(tar(oci(LOWER, UPPER, packed=packed)))
            self.assertEqual(paths(root.tree), ["app", "app/main", "bin", "bin/sh", "etc"])
            self.assertEqual(self._content(root, "app/main"), b"program")
            self.assertEqual(self._content(root, "bin/sh"), b"shell")
            self.assertEqual(list(root.command), ["/app/main", "serve"])
            self.assertEqual((list(root.environment), root.architecture), (["PATH=/bin"], Architecture.X86_64))

    def test_docker_save(self) -> None:
        """The older form of docker save is read, with layers that are links to equal ones."""
        ids = [f"sha256:{_digest(layer)}" for layer in (LOWER, UPPER, LOWER)]
        config = json.dumps({"architecture": "arm64", "config": {"Cmd": None}, "rootfs": {"diff_ids": ids}}).encode()
        names = ["0/layer.tar", "1/layer.tar", "2/layer.tar"]
        manifest = json.dumps([{"Config": "c.json", "Layers": names}]).encode()
        root = self._read(
            tar([
                (names[0], LOWER), (names[1], UPPER), (names[2], other(b"2", "../0/layer.tar")),
                ("c.json", config), ("manifest.json", manifest),
            ])
        )  # fmt: skip
        self.assertEqual(paths(root.tree), ["app", "app/main", "bin", "bin/sh", "etc", "etc/motd"])
        self.assertEqual((root.architecture, list(root.command)), (Architecture.AARCH64, []))

    def test_digests(self) -> None:
        """A layer, configuration or manifest with another content than its digest says is refused."""
        members = oci(LOWER, UPPER)
        for number in range(len(members) - 1):
            name, data = members[number]
            assert isinstance(data, bytes)
            changed = data.replace(b"amd64", b"arm64").replace(b"sha256:", b"sha256: ")
            if changed == data:
                changed = gzip.compress(gzip.decompress(data).replace(b"m", b"M"), mtime=0)
            bad = [*members[:number], (name, changed), *members[number + 1 :]]
            self._refused(tar(bad), "another digest")

    def test_documents(self) -> None:
        """Documents of other shapes are refused with the field."""
        for changes, words in (
            ({"index": {"manifests": []}}, "expected one image, got 0"),
            ({"index": {"manifests": [{"digest": "sha256:../../etc"}]}}, "digest"),
            ({"index": {"manifests": [{"digest": "md5:0"}]}}, "digest"),
            ({"index": {"manifests": [{"digest": "sha256:" + "0" * 64}]}}, "missing"),
            ({"manifest": {"manifests": []}}, "several platforms"),
            ({"manifest": {"layers": "x"}}, "layers: missing"),
            ({"manifest": {"layers": []}}, "0 layers and 1 digests"),
            ({"config": {"rootfs": {}}}, "diff_ids: missing"),
            ({"config": {"config": {"Env": [1]}}}, "Env: expected an array of strings"),
            ({"config": {"config": {"Cmd": "x"}}}, "Cmd: expected an array of strings"),
        ):
            self._refused(tar(oci(LOWER, **changes)), words)
        self._refused(tar([("index.json", b"{")]), "index.json: not JSON")
        self._refused(tar([("manifest.json", b"[]")]), "expected one image")

    def test_bombs(self) -> None:
        """What unpacks to more than the bound is refused while it is unpacked."""
        self.patch(archive_module, "MOST_BYTES", 1 << 16)
        self._refused(gzip.compress(bytes(1 << 22)), "unpacks to more than 65536 bytes")
        self._refused(tar(oci(tar([("a", bytes(1 << 22))]))), "unpacks to more than 65536 bytes")

    def test_other_files(self) -> None:
        """zstd, cut-off gzip, an empty archive and what is no archive are refused with what to do."""
        self._refused(b"\x28\xb5\x2f\xfd rest", "zstd")
        self._refused(gzip.compress(LOWER)[:-9], "cut off")
        self._refused(b"\x1f\x8b" + b"x" * 99, "damaged gzip")
        self._refused(tar([]), "empty")
        self._refused(b"text" * 300, "not a tar archive")
