"""scripts/package.sh and packaging/: what can be checked without building a package."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).parent.parent
PACKAGING = ROOT / "packaging"
SPEC = PACKAGING / "nitroproxy.spec"


class PackageTests(SynchronousTestCase):
    """The files of both packages."""

    def test_usage(self) -> None:
        """help names both packages; anything else is refused with status 2."""
        for words, status in ((["help"], 0), ([], 0), (["nonsense"], 2)):
            done = subprocess.run(
                ["bash", ROOT / "scripts" / "package.sh", *words], check=False, capture_output=True, text=True
            )
            self.assertEqual(done.returncode, status)
            for name in ("deb", "rpm"):
                self.assertIn(f"\n  {name} ", done.stdout + done.stderr)

    def test_configuration(self) -> None:
        """Both keep an edited configuration, and have the same files of it."""
        kept = re.findall(r"(?m)^%config\(noreplace\) (?:%attr\([^)]*\) )?(\S+)$", SPEC.read_text())
        script = (ROOT / "scripts" / "package.sh").read_text()
        self.assertEqual(kept, ["/etc/nitroproxy/config.json", "/etc/nitroproxy/nitroproxy.env"])
        self.assertIn(f"printf '%s\\n' {' '.join(kept)} >\"$tree/DEBIAN/conffiles\"", script)

    def test_units(self) -> None:
        """What is stopped at removal are units that there are."""
        for path in (SPEC, PACKAGING / "deb" / "prerm"):
            [line] = re.findall(r"(?m)disable --now --quiet (.*?) \|\|", path.read_text())
            for unit in line.split():
                name = unit if "." in unit else f"{unit}.service"
                self.assertTrue((ROOT / "systemd" / name).exists(), name)

    def test_spec(self) -> None:
        """rpm understands the spec."""
        if shutil.which("rpmspec") is None:
            raise SkipTest("there is no rpmspec here")
        command = ["rpmspec", "--parse", "--define", "tree /x", "--define", "version_of_nitroproxy 1", str(SPEC)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Version: 1\n", done.stdout)
