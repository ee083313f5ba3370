"""What boots a root: kernels, command lines, AWS's blobs."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image.errors import ImageError
from nitroproxy.image.kernel import check_cmdline, kernel_version, nitro_blobs, read_cmdline
from nitroproxy.image.layout import Architecture
from tests.test_image_tree import paths


def bzimage(version: bytes = b"6.12.1-test (builder) #1") -> bytes:
    """The head of an x86_64 kernel."""
    head = bytearray(0x400)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x100).to_bytes(2, "little")
    head[0x300 : 0x300 + len(version)] = version
    return bytes(head)


class KernelTests(SynchronousTestCase):
    """Kernels and command lines."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def _file(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(data)
        return path

    def test_version(self) -> None:
        """An x86_64 kernel's version is read from its boot header; arm64 has none."""
        kernel = self._file("bzImage", bzimage())
        self.assertEqual(kernel_version(kernel, Architecture.X86_64), "6.12.1-test")
        arm = self._file("Image", bytes(56) + b"ARMd" + bytes(99))
        self.assertEqual(kernel_version(arm, Architecture.AARCH64), "unknown")
        self.assertEqual(kernel_version(self._file("x", bzimage(b"")), Architecture.X86_64), "unknown")

    def test_wrong_architecture(self) -> None:
        """A kernel for the other architecture, or no kernel, is refused before an image is built with it."""
        kernel = self._file("bzImage", bzimage())
        self.assertIn("aarch64", str(self.assertRaises(ImageError, kernel_version, kernel, Architecture.AARCH64)))
        for data in (b"", b"\x7fELF", bytes(56) + b"ARMd"):
            other = self._file("other", data)
            self.assertIn("bzImage", str(self.assertRaises(ImageError, kernel_version, other, Architecture.X86_64)))

    def test_cmdline(self) -> None:
        """Line ends around a command line are dropped; what no kernel takes is refused."""
        self.assertEqual(read_cmdline(self._file("cmdline", b" a=1 b\n")), "a=1 b")
        for data in (b"a\nb", b"a\0", b"\xff", b"a" * 2049):
            self.assertRaises(ImageError, read_cmdline, self._file("cmdline", data))
        self.assertIn("missing: No such", str(self.assertRaises(ImageError, read_cmdline, self.directory / "missing")))
        self.assertRaises(ImageError, check_cmdline, "ü" * 1025)

    def test_blobs(self) -> None:
        """AWS's blobs are found; a kernel without the module nsm.ko has the driver built in."""
        self._file("init", b"init")
        self._file("cmdline", b"reboot=k\n")
        boot = nitro_blobs(self.directory, Architecture.AARCH64)
        self.assertEqual((boot.kernel.name, boot.cmdline, paths(boot.ramdisk)), ("Image", "reboot=k", ["dev", "init"]))
        self._file("nsm.ko", b"module")
        boot = nitro_blobs(self.directory, Architecture.X86_64)
        self.assertEqual((boot.kernel.name, paths(boot.ramdisk)), ("bzImage", ["dev", "init", "nsm.ko"]))
        (self.directory / "init").unlink()
        self.assertIn(
            "init: No such", str(self.assertRaises(ImageError, nitro_blobs, self.directory, Architecture.X86_64))
        )
