"""scripts/build.sh and setup.py: which build of nitroproxy an image gets."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy import __version__

ROOT = Path(__file__).parent.parent
MACHINE = platform.machine()


class CompiledTests(SynchronousTestCase):
    """``--compiled``: a wheel that is not exactly the one that was meant is refused before anything is built."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()

    def build(self, *arguments: str) -> tuple[int, str]:
        """Run the script; its status and what it says."""
        command = ["bash", str(ROOT / "scripts" / "build.sh"), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr

    def wheel(self, name: str) -> Path:
        path = self.directory / name
        path.write_bytes(b"a wheel")
        return path

    def test_without_a_digest(self) -> None:
        """A wheel is named with its digest."""
        wheel = self.wheel(f"nitroproxy-{__version__}-cp311-cp311-linux_{MACHINE}.whl")
        for command in ("enclave", "docker"):
            status, said = self.build(command, "--compiled", str(wheel))
            self.assertEqual(status, 2)
            self.assertIn("expected WHEEL#sha256=DIGEST", said)

    def test_another_wheel(self) -> None:
        """A wheel that has changed is refused; the message has both digests."""
        wheel = self.wheel(f"nitroproxy-{__version__}-cp311-cp311-linux_{MACHINE}.whl")
        status, said = self.build("enclave", "--compiled", f"{wheel}#sha256={'0' * 64}")
        self.assertEqual(status, 1)
        self.assertIn(hashlib.sha256(b"a wheel").hexdigest(), said)
        self.assertIn("0" * 64, said)

    def test_not_for_the_image(self) -> None:
        """A wheel of another version, Python or machine, and the pure one, are refused; the right one is named."""
        digest = hashlib.sha256(b"a wheel").hexdigest()
        for name in (
            f"nitroproxy-9.9-cp311-cp311-linux_{MACHINE}.whl",
            f"nitroproxy-{__version__}-cp313-cp313-linux_{MACHINE}.whl",
            f"nitroproxy-{__version__}-cp311-cp311-linux_sparc.whl",
            f"nitroproxy-{__version__}-py3-none-any.whl",
        ):
            status, said = self.build("docker", "--compiled", f"{self.wheel(name)}#sha256={digest}")
            self.assertEqual(status, 1, name)
            self.assertIn(f"the image needs nitroproxy-{__version__}-cp311-cp311-linux_{MACHINE}.whl", said)

    def test_missing(self) -> None:
        """A file that is not there is named."""
        status, said = self.build("enclave", "--compiled", f"/nowhere.whl#sha256={'0' * 64}")
        self.assertEqual((status, said), (1, "build.sh: --compiled /nowhere.whl: no such file\n"))


class SetupTests(SynchronousTestCase):
    """setup.py."""

    def extensions(self, **environ: str) -> str:
        """The modules that it would give to mypyc, one a line; nothing without the switch."""
        script = (
            "import setuptools, sys, types\n"
            "build = sys.modules['mypyc.build'] = types.ModuleType('mypyc.build')\n"
            "build.mypycify = lambda modules: modules\n"
            "setuptools.setup = lambda ext_modules: print(*ext_modules, sep='\\n')\n"
            "exec(open('setup.py').read())\n"
        )
        environment = {name: value for name, value in os.environ.items() if name != "NITROPROXY_COMPILED"}
        command = [sys.executable, "-c", script]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=ROOT, env={**environment, **environ}
        )
        return done.stdout.strip()

    def test_pure(self) -> None:
        """Without the switch nothing is compiled, so no compiler is needed, and the wheel is for every machine."""
        self.assertEqual(self.extensions(), "")
        self.assertEqual(self.extensions(NITROPROXY_COMPILED="0"), "")

    def test_compiled(self) -> None:
        """With it the engine is; what is left out exists, and has not been renamed."""
        modules = self.extensions(NITROPROXY_COMPILED="1").splitlines()
        for name in ("http1/reader", "proxy/exchange", "proxy/downstream", "proxy/upstream", "target", "host/gateway"):
            self.assertIn(f"nitroproxy/{name}.py", modules)
        left_out = re.findall(r'"(\w+)"', (ROOT / "setup.py").read_text().partition("PURE = ")[2].partition("}\n")[0])
        for name in left_out:
            self.assertTrue((ROOT / f"nitroproxy/proxy/{name}.py").is_file(), name)
            self.assertNotIn(f"nitroproxy/proxy/{name}.py", modules)
