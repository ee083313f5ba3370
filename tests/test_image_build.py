"""Images are built from their parts, the same bytes every time."""

from __future__ import annotations

import io
import stat
import zlib
from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image.build import Plan, application_tree, build_image
from nitroproxy.image.errors import ImageError
from nitroproxy.image.kernel import Boot
from nitroproxy.image.layout import Architecture, Kind, Section
from nitroproxy.image.reader import read_image
from nitroproxy.image.tree import Node, Tree
from tests.test_image_cpio import entries, regular
from tests.test_image_kernel import bzimage


class BuildTests(SynchronousTestCase):
    """`build_image`."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.kernel = self.directory / "bzImage"
        self.kernel.write_bytes(bzimage())
        self.output = self.directory / "image.eif"
        root, boot = Tree(), Tree()
        root.add("bin/app", regular(b"program", mode=0o755))
        root.add("tmp", Node(stat.S_IFDIR | 0o700))
        boot.add("init", regular(b"init", mode=0o755))
        self.plan = Plan(
            root=root, boot=Boot(self.kernel, "console=ttyS0", boot), boot_kind="emulator",
            architecture=Architecture.X86_64, command=["/bin/app", "two words"], environment=["A=1", "B="],
            name="test", version="3", tool_version="9",
        )  # fmt: skip

    def _ramdisks(self) -> list[bytes]:
        found: dict[Section, bytes] = {}

        def take(section: Section, piece: bytes) -> None:
            if section.kind is Kind.RAMDISK:
                found[section] = found.get(section, b"") + piece

        read_image(self.output, take)
        return [zlib.decompress(raw, 16 + zlib.MAX_WBITS) for raw in found.values()]

    def test_built(self) -> None:
        """The image that is read has the parts that were given, and says what boots it."""
        built = build_image(self.plan, self.output)
        found = read_image(self.output)
        self.assertEqual((found.measurements, found.size), (built.measurements, built.image_bytes))
        self.assertEqual(found.cmdline, "console=ttyS0")
        self.assertEqual(found.metadata["ImageName"], "test")
        self.assertEqual(found.metadata["BuildMetadata"]["KernelVersion"], "6.12.1-test")
        ours = found.metadata["CustomMetadata"]["nitroproxy"]
        self.assertEqual(ours, {"boot": "emulator", "root_bytes": built.root_bytes})
        self.assertEqual(sum(map(len, self._ramdisks())), built.root_bytes)

    def test_second_ramdisk(self) -> None:
        """The second ramdisk is laid out as AWS's init expects it; directories to mount on are made if missing."""
        build_image(self.plan, self.output)
        first, second = self._ramdisks()
        self.assertEqual([name for name, _, _ in entries(first)], ["init"])
        found = {name: (fields["mode"], data) for name, fields, data in entries(second)}
        self.assertEqual(found["cmd"][1], b"/bin/app\ntwo words\n")
        self.assertEqual(found["env"][1], b"A=1\nB=\n")
        self.assertEqual(found["rootfs/bin/app"][1], b"program")
        for name in ("dev", "proc", "run", "sys", "var"):
            self.assertEqual(found[f"rootfs/{name}"][0], stat.S_IFDIR | 0o755)
        self.assertEqual(found["rootfs/tmp"][0], stat.S_IFDIR | 0o700)

    def test_reproducible(self) -> None:
        """The same plan gives the same bytes; another time gives another image."""
        build_image(self.plan, self.output)
        first = self.output.read_bytes()
        build_image(self.plan, self.output)
        self.assertEqual(self.output.read_bytes(), first)
        build_image(replace(self.plan, time=1), self.output)
        self.assertNotEqual(self.output.read_bytes(), first)

    def test_metadata_is_not_measured(self) -> None:
        """Name and version of an image do not change its registers."""
        first = build_image(self.plan, self.output).measurements
        self.assertEqual(build_image(replace(self.plan, name="x", version="y"), self.output).measurements, first)

    def test_commands(self) -> None:
        """A command that is not in the root, none at all, and what does not fit a line are refused."""
        for changes, words in (
            ({"command": []}, "names none"),
            ({"command": ["/bin/missing"]}, "there is no /bin/missing"),
            ({"command": ["app"], "environment": ["PATH=/usr/bin:/sbin"]}, "no app in /usr/bin:/sbin"),
            ({"command": ["/bin/app", "a\nb"]}, "line ends"),
            ({"command": ["/bin/app", ""]}, "must not be empty"),
            ({"environment": ["A"]}, "expected NAME=VALUE"),
            ({"environment": ["A=\0"]}, "NUL"),
        ):
            plan = replace(self.plan, **changes)
            self.assertIn(words, str(self.assertRaises(ImageError, application_tree, plan)))
        application_tree(replace(self.plan, command=["app"], environment=[]))

    def test_no_init(self) -> None:
        """A boot ramdisk without /init is refused: the kernel would panic."""
        self.plan.boot.ramdisk.remove("init")
        self.assertIn("no /init", str(self.assertRaises(ImageError, build_image, self.plan, self.output)))

    def test_nothing_half_done(self) -> None:
        """When a file cannot be read the old image stays, and no other file."""
        self.output.write_bytes(b"old")
        self.plan.root.add("bin/broken", Node(stat.S_IFREG, size=9, content=io.BytesIO))
        self.assertIn("bin/broken", str(self.assertRaises(ImageError, build_image, self.plan, self.output)))
        self.assertEqual(self.output.read_bytes(), b"old")
        self.assertEqual(sorted(path.name for path in self.directory.iterdir()), ["bzImage", "image.eif"])
