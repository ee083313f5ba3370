"""scripts/artifacts.sh and scripts/sbom.py: what goes to an instance, the same bytes every time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.deploying import wheel

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"


class ArtifactsTests(SynchronousTestCase):
    """The functions of the script, with wheels and an image that are there already."""

    def setUp(self) -> None:
        self.build = Path(self.mktemp()).absolute()
        for name in ("wheelhouse", "own"):
            (self.build / "cache" / name).mkdir(parents=True)
        wheel(self.build / "cache/wheelhouse/one-1.0-py3-none-any.whl", {"one.py": ""})
        wheel(self.build / "cache/own/nitroproxy-0.1.0-py3-none-any.whl", {"nitroproxy/x.py": ""})
        for name in ("enclave.eif", "measurements.json", "policy.json"):
            (self.build / name).write_text(name)

    def bash(self, code: str) -> subprocess.CompletedProcess[str]:
        prefix = (
            f"source {ROOT}/scripts/build.sh\nbuild={self.build} cache={self.build}/cache python={sys.executable}\n"
            "version=0.1.0 pythons=3.11 machines=x86_64 config=etc/config.json eif=$build/enclave.eif\n"
        )
        return subprocess.run(["bash", "-c", prefix + code], check=False, capture_output=True, text=True)

    def make(self, code: str = "") -> Path:
        done = self.bash(f'{code}\nmake_artifacts "$build/artifacts"')
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return self.build / "artifacts"

    def test_content(self) -> None:
        """Everything that deploy.sh needs is there, with a digest."""
        made = self.make()
        for name in (
            "deploy.sh",
            "wheels/one-1.0-py3-none-any.whl",
            "wheels/nitroproxy-0.1.0-py3-none-any.whl",
            "requirements.lock",
            "enclave.eif",
            "measurements.json",
            "policy.json",
            "etc/config.json",
            "etc/nitroproxy.env",
            "systemd/nitroproxy-host.service",
            "sbom.cdx.json",
            "README",
        ):
            self.assertTrue((made / name).is_file(), name)
        done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=made, check=False)
        self.assertEqual(done.returncode, 0)
        files = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()} - {"SHA256SUMS"}
        summed = {line.split("  ", 1)[1] for line in (made / "SHA256SUMS").read_text().splitlines()}
        self.assertEqual(summed, files)
        self.assertTrue(os.access(made / "deploy.sh", os.X_OK))

    def test_reproducible(self) -> None:
        """The same files give the same directory, times included."""
        found = []
        for mask in (0o022, 0o077):
            self.addCleanup(os.umask, os.umask(mask))
            made = self.make()
            found.append(
                {
                    str(path.relative_to(made)): (
                        path.stat().st_mode,
                        path.stat().st_mtime,
                        path.is_file() and path.read_bytes(),
                    )
                    for path in made.rglob("*")
                }
            )
            shutil.rmtree(made)
        self.assertEqual(found[0], found[1])

    def test_readme(self) -> None:
        """It says what kind of image there is, if any."""
        self.assertIn("what clients verify it with", (self.make() / "README").read_text())
        shutil.rmtree(self.build / "artifacts")
        self.assertIn("name one by deploy.sh --eif", (self.make("eif=") / "README").read_text())
        shutil.rmtree(self.build / "artifacts")
        (self.build / "enclave.eif").rename(self.build / "enclave-emulator.eif")
        readme = (self.make("eif=$build/enclave-emulator.eif") / "README").read_text()
        self.assertIn("runs in the emulator only", readme)

    def test_options(self) -> None:
        """Wrong options are named with status 2 before anything is made."""
        for options, words in (
            ("--python 2.7", "--python: expected versions such as 3.11,3.12, got '2.7'"),
            ("--machine riscv64", "--machine: expected x86_64,aarch64"),
            ("--python", "--python needs a value"),
            ("--no-enclave --role x", "only for an image that is built here"),
        ):
            done = self.bash(f"cmd_artifacts {options}")
            self.assertEqual(done.returncode, 2, options)
            self.assertIn(words, done.stderr)
        done = self.bash("cmd_artifacts --eif /nonexistent")
        self.assertEqual((done.returncode, done.stderr), (1, "build.sh: /nonexistent: no such file\n"))

    def test_with_nitro_cli(self) -> None:
        """nitro-cli empties its output first: an image that was there survives a build that fails."""
        fakes = ROOT / "tests" / "fakes"
        state = self.build / "nitro"
        state.mkdir()
        setup = (
            f'export NITRO_CLI_STATE={state}; nitro-cli() {{ {sys.executable} {fakes}/nitro-cli "$@"; }}\n'
            "lock() { :; }; tools() { :; }\n"
        )
        done = self.bash(f"{setup}cmd_enclave --with-nitro-cli --from missing")
        self.assertEqual(done.returncode, 1)
        self.assertIn("nitro-cli build-enclave failed", done.stderr)
        self.assertEqual((self.build / "enclave.eif").read_text(), "enclave.eif")
        self.assertFalse((self.build / "enclave.eif.new").exists())
        done = self.bash(f"{setup}cmd_enclave --with-nitro-cli --from mine:1 --public")
        self.assertEqual(done.returncode, 0, done.stderr)
        measured = json.loads((self.build / "measurements.json").read_text())["Measurements"]
        [entry] = json.loads((self.build / "policy.json").read_text())["accept"]
        self.assertEqual((entry["pcrs"]["0"], entry["public"]), (measured["PCR0"], True))
        self.assertFalse((self.build / "enclave.eif.new").exists())
        done = self.bash(f"{setup}cmd_enclave --with-nitro-cli")
        self.assertEqual(done.returncode, 2)


class BillTests(SynchronousTestCase):
    """The bill of materials."""

    def bill(self, version: str = "0.1.0") -> Any:
        command = [sys.executable, str(ROOT / "scripts" / "sbom.py"), version, str(LOCK)]
        environ = {**os.environ, "SOURCE_DATE_EPOCH": "1"}
        self.text = subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout
        return json.loads(self.text)

    def test_components(self) -> None:
        """Each locked package is in it, with its version and the digests of the lock."""
        found, text = self.bill()["components"], LOCK.read_text()
        names = [line.split("==")[0] for line in text.splitlines() if "==" in line and not line.startswith((" ", "#"))]
        self.assertEqual([one["name"] for one in found], names)
        digests = [digest["content"] for one in found for digest in one["externalReferences"][0]["hashes"]]
        self.assertEqual(len(digests), text.count("sha256:"))
        self.assertTrue(all(one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}" for one in found))

    def test_reproducible(self) -> None:
        """The same lock gives the same bytes; another version has another serial number."""
        first = self.bill()
        text = self.text
        self.bill()
        self.assertEqual(self.text, text)
        self.assertEqual(first["metadata"]["timestamp"], "1970-01-01T00:00:01Z")
        self.assertNotEqual(first["serialNumber"], self.bill("0.1.1")["serialNumber"])
        self.assertEqual({one["ref"] for one in first["dependencies"]}, {"pkg:generic/nitroproxy@0.1.0"})
