"""The artifacts: which wheels fit, what is compared, what is unpacked."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.deploy.artifacts import Artifacts, entry_points, fits, glibc, unpack
from nitroproxy.deploy.failure import Refused
from tests.deploying import wheel


class WheelTests(SynchronousTestCase):
    """Names of wheels, as those of the lock have them."""

    def test_fits(self) -> None:
        """Python, ABI, machine and glibc have to fit; several tags are alternatives."""
        for name, fitting in (
            ("attrs-26.1.0-py3-none-any.whl", True),
            ("six-1.0-py2.py3-none-any.whl", True),
            ("old-1.0-py2-none-any.whl", False),
            ("cbor2-6.3.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
            ("cbor2-6.3.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", False),
            ("cbor2-6.3.0-cp311-cp311-manylinux_2_17_aarch64.whl", False),
            ("cbor2-6.3.0-cp311-cp311-musllinux_1_2_x86_64.whl", False),
            ("cryptography-50.0.2-cp39-abi3-manylinux_2_28_x86_64.whl", True),
            ("cryptography-50.0.2-cp39-abi3-manylinux_2_34_x86_64.whl", False),
            ("cryptography-50.0.2-cp312-abi3-manylinux_2_28_x86_64.whl", False),
            ("x-1.0-cp311-none-manylinux2014_x86_64.whl", True),
            ("x-1.0-cp310-none-manylinux2014_x86_64.whl", False),
            ("x-1.0-py311-none-manylinux1_x86_64.whl", True),
            ("x-1.0-py312-none-any.whl", False),
            ("x-1.0-1-py3-none-any.whl", True),
            ("x-1.0-cp311-cp311-win_amd64.whl", False),
        ):
            self.assertEqual(fits(name, 11, "x86_64", (2, 31)), fitting, name)

    def test_glibc(self) -> None:
        """This system's glibc is known; musl has none, and then only pure wheels fit."""
        self.assertGreaterEqual(glibc(), (2, 17))

        def unknown(name: str) -> str:
            raise ValueError("unrecognized configuration name")

        self.patch(os, "confstr", unknown)
        self.assertEqual(glibc(), (0, 0))
        self.assertFalse(fits("x-1.0-cp311-cp311-manylinux1_x86_64.whl", 11, "x86_64", glibc()))


class ArtifactsTests(SynchronousTestCase):
    """A directory of artifacts."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        (self.directory / "wheels").mkdir(parents=True)
        self.wheel("nitroproxy-1.2.3")

    def wheel(self, name: str, tags: str = "py3-none-any") -> None:
        wheel(self.directory / "wheels" / f"{name}-{tags}.whl", {"x.py": name})

    def test_what_it_is(self) -> None:
        """One wheel of nitroproxy makes a directory the artifacts, and says the version."""
        self.assertEqual(Artifacts(self.directory).version, "1.2.3")
        self.wheel("nitroproxy-1.2.4")
        self.assertRaises(Refused, Artifacts, self.directory)
        self.assertRaises(Refused, Artifacts, self.directory / "wheels")

    def test_wheels(self) -> None:
        """Each locked package has a wheel for this Python, however its name is written; others are not taken."""
        python = f"cp3{sys.version_info.minor}"
        self.wheel("zope_interface-8.7", f"{python}-{python}-manylinux_2_17_x86_64")
        self.wheel("zope_interface-8.7", "cp399-cp399-manylinux_2_17_x86_64")
        self.wheel("unlocked-1")
        lock = self.directory / "requirements.lock"
        lock.write_text(
            "# comment\nzope-interface==8.7 ; python_version > '3' \\\n    --hash=sha256:0 \\\n    --hash=sha256:1\n"
        )
        names = [path.name for path in Artifacts(self.directory).wheels("x86_64")]
        self.assertEqual(
            names,
            [f"zope_interface-8.7-{python}-{python}-manylinux_2_17_x86_64.whl", "nitroproxy-1.2.3-py3-none-any.whl"],
        )
        error = str(self.assertRaises(Refused, Artifacts(self.directory).wheels, "aarch64"))
        self.assertIn("no wheel of zope-interface", error)
        lock.write_text("zope-interface==8.8 \\\n")
        self.assertRaises(Refused, Artifacts(self.directory).wheels, "x86_64")
        lock.unlink()
        self.assertIn(
            "copy the artifacts again", str(self.assertRaises(Refused, Artifacts(self.directory).wheels, "x"))
        )

    def test_digest(self) -> None:
        """Other wheels make another environment."""
        found = Artifacts(self.directory)
        first = found.digest([found.wheel])
        self.assertEqual(first, found.digest([found.wheel]))
        self.wheel("nitroproxy-1.2.3", "py3-none-any")
        found.wheel.write_bytes(found.wheel.read_bytes() + b"x")
        self.assertNotEqual(first, found.digest([found.wheel]))

    def test_no_sums(self) -> None:
        """Without digests nothing is believed."""
        self.assertIn(
            "SHA256SUMS cannot be read", str(self.assertRaises(Refused, Artifacts(self.directory).check_sums))
        )

    def test_unpack(self) -> None:
        """A wheel is unpacked, but not outside of its directory; a damaged one is named."""
        path = self.directory / "a.whl"
        for name in ("../out", "/out", "a/../../out"):
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(name, "x")
            self.assertIn("leaves the directory", str(self.assertRaises(Refused, unpack, path, self.directory / "to")))
        path.write_bytes(b"nonsense")
        self.assertIn("a.whl cannot be unpacked", str(self.assertRaises(Refused, unpack, path, self.directory / "to")))
        self.assertEqual(list(self.directory.parent.glob("out")), [])

    def test_entry_points(self) -> None:
        """The programs of what was unpacked."""
        info = self.directory / "x-1.dist-info"
        info.mkdir()
        (info / "entry_points.txt").write_text(
            "[other]\na = b:c\n\n[console_scripts]\nrun = x.main:main\nmore=x:y.z [extra]\n"
        )
        self.assertEqual(list(entry_points(self.directory)), [("run", "x.main", "main"), ("more", "x", "y.z")])
