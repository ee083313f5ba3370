"""The command `nitroproxy image`."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.commands.image import main
from nitroproxy.image.kernel import BLOBS
from tests.images import VECTORS
from tests.test_image_archive import LOWER, UPPER, oci
from tests.test_image_kernel import bzimage
from tests.test_image_layers import tar
from tests.test_image_signature import key_pair


class CommandTests(SynchronousTestCase):
    """Arguments in, documents and statuses out."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.blobs = self.directory / "blobs"
        self.blobs.mkdir()
        for name, data in (("bzImage", bzimage()), ("cmdline", b"reboot=k\n"), ("init", b"init"), ("nsm.ko", b"nsm")):
            (self.blobs / name).write_bytes(data)
        self.root = self.directory / "root.tar"
        self.root.write_bytes(tar(oci(LOWER, UPPER)))
        self.eif = self.directory / "out.eif"

    def _ran(self, *arguments: object, status: int = 0) -> tuple[str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            self.assertEqual(main([str(one) for one in arguments]), status, err.getvalue())
        return out.getvalue(), err.getvalue()

    def _build(self, *arguments: object, status: int = 0) -> tuple[str, str]:
        return self._ran("build", "--root", self.root, "--output", self.eif, *arguments, status=status)

    def test_build(self) -> None:
        """An image of a container's archive and AWS's blobs is built, measured, described and accepted by a policy."""
        files = {name: self.directory / f"{name}.json" for name in ("measurements", "policy")}
        out, err = self._build(
            "--blobs", self.blobs, "--measurements", files["measurements"], "--policy", files["policy"],
            "--role", "arn:aws:iam::1:role/x", "--image-version", "1.4", "--connections", 8192,
        )  # fmt: skip
        measured = json.loads(out)
        self.assertEqual(json.loads(files["measurements"].read_text()), measured)
        entry = json.loads(files["policy"].read_text())["accept"][0]
        self.assertEqual((entry["name"], entry["role"]), ("1.4", "arn:aws:iam::1:role/x"))
        self.assertEqual(entry["pcrs"]["0"], measured["Measurements"]["PCR0"])
        self.assertIn("to run 505", err)
        described = json.loads(self._ran("describe", self.eif)[0])
        self.assertEqual(described["Measurements"], measured["Measurements"])
        self.assertEqual(described["Metadata"]["CustomMetadata"]["nitroproxy"]["boot"], "nitro")
        self.assertEqual(described["MemoryMiB"], 64 + 48 + 32 + 176)  # 175.8 MiB for 4,000 connections

    def test_own_kernel(self) -> None:
        """A kernel of one's own makes the image custom; all three parts can be marked as the emulator's."""
        own = self.directory / "kernel"
        own.write_bytes(bzimage(b"7.0"))
        boot = self.directory / "boot"
        boot.mkdir()
        (boot / "init").write_text("#!/bin/sh\n")
        three = ("--kernel", own, "--boot", boot, "--cmdline", self.blobs / "cmdline")
        for arguments, kind in (
            (("--blobs", self.blobs, "--kernel", own), "custom"),
            (three, "custom"),
            ((*three, "--emulator"), "emulator"),
        ):
            self._build(*arguments)
            described = json.loads(self._ran("describe", self.eif)[0])
            self.assertEqual(described["Metadata"]["CustomMetadata"]["nitroproxy"]["boot"], kind)
            self.assertEqual(described["Metadata"]["KernelVersion"], "7.0")

    def test_contradictions(self) -> None:
        """Arguments that contradict each other end with 2 before anything is written."""
        own = ("--kernel", "k", "--boot", "b", "--cmdline", "c")
        for arguments, words in (
            (("--blobs", self.blobs, "--emulator"), "--emulator: needs"),
            ((*own, "--blobs", self.blobs), "nothing is left for it"),
            (("--blobs", self.blobs, "--role", "x"), "--policy"),
            (("--blobs", self.blobs, "--arch", "aarch64"), "is for x86_64"),
        ):
            self.assertIn(words, self._build(*arguments, status=2)[1])
        self.patch(__import__("os"), "environ", {"SOURCE_DATE_EPOCH": "yesterday"})
        self.assertIn("SOURCE_DATE_EPOCH", self._build("--blobs", self.blobs, status=2)[1])
        self.assertFalse(self.eif.exists())

    def test_refused_input(self) -> None:
        """Input that cannot be used ends with 1 and one line that names the file."""
        damaged = self.directory / "damaged.eif"
        damaged.write_bytes((VECTORS / "three-ramdisks.eif").read_bytes()[:-1])
        for command in ("describe", "measure"):
            _, err = self._ran(command, damaged, status=1)
            self.assertEqual(err.count("\n"), 1)
            self.assertIn("damaged.eif: cut off", err)
        self._ran("extract", damaged, self.directory / "x", status=1)
        (self.blobs / "init").unlink()
        self.assertIn("init: No such", self._build("--blobs", self.blobs, status=1)[1])
        if not BLOBS.exists():
            self.assertIn(str(BLOBS), self._build(status=1)[1])

    def test_sign_and_extract(self) -> None:
        """An image is signed in place, measured with PCR8, and extracted."""
        pem, key = key_pair(ec.generate_private_key(ec.SECP384R1()))
        (self.directory / "c.pem").write_bytes(pem)
        (self.directory / "k.pem").write_bytes(key)
        self._build("--blobs", self.blobs)
        out, _ = self._ran(
            "sign",
            self.eif,
            "--private-key",
            self.directory / "k.pem",
            "--signing-certificate",
            self.directory / "c.pem",
        )
        self.assertEqual(json.loads(self._ran("measure", self.eif)[0]), json.loads(out))
        self.assertIn("PCR8", json.loads(out)["Measurements"])
        self._ran("extract", self.eif, self.directory / "parts")
        self.assertIn("signature", [path.name for path in (self.directory / "parts").iterdir()])
        self.assertIn("No such", self._ran(
            "sign", self.eif, "--private-key", "missing", "--signing-certificate", "missing", status=1
        )[1])  # fmt: skip

    def test_policy_of_an_image(self) -> None:
        """`measure` writes a policy for an image that AWS's tool made."""
        policy = self.directory / "p.json"
        self._ran("measure", VECTORS / "signed-p384.eif", "--policy", policy, "--public", "--entry-name", "theirs")
        entry = json.loads(policy.read_text())["accept"][0]
        self.assertEqual((entry["name"], entry["public"], "role" in entry), ("theirs", True, False))
