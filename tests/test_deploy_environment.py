"""An environment made of wheels, and the link to it."""

from __future__ import annotations

import compileall
import os
import stat
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.deploy import environment
from nitroproxy.deploy.failure import Refused
from nitroproxy.deploy.machine import Machine
from tests.deploying import wheel


class EnvironmentTests(SynchronousTestCase):
    """Below a root."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        (self.root / "opt").mkdir(parents=True)
        self.machine = Machine(self.root, os.environ)
        self.wheel = self.root / "x-1-py3-none-any.whl"
        wheel(
            self.wheel,
            {
                "x.py": "import sys\ndef main():\n    print('x', sys.argv[1:], sys.prefix)\n",
                "x-1.dist-info/entry_points.txt": "[console_scripts]\nx = x:main\n",
                "x-1.data/data/share/x/file": "data",
                "x-1.data/scripts/old": "#!/bin/sh\necho old\n",
            },
        )

    def make(self, directory: str = "/opt/nitroproxy-1", digest: str = "d1") -> Path:
        environment.make(self.machine, directory, [self.wheel], digest)
        return self.machine.path(directory)

    def test_make(self) -> None:
        """Programs run, data is in its place, everything is compiled and can be read with any umask."""
        self.addCleanup(os.umask, os.umask(0o077))
        made = self.make()
        done = subprocess.run([made / "bin" / "x", "a"], check=True, capture_output=True, text=True)
        self.assertEqual(done.stdout, f"x ['a'] {made}\n")
        self.assertEqual((made / "share/x/file").read_text(), "data")
        self.assertTrue((made / "bin/old").exists())
        self.assertEqual(len(list(made.glob("lib/*/site-packages/__pycache__/x.*.pyc"))), 1)
        self.assertFalse(list(made.glob("lib/*/site-packages/*.data")))
        for path in (made, made / "bin/x", *made.glob("lib/*/site-packages/x.py")):
            mode = stat.S_IMODE(path.stat().st_mode)
            self.assertEqual(mode, 0o755 if path.is_dir() or path.parent.name == "bin" else 0o644, path)
        self.assertTrue(environment.is_complete(self.machine, "/opt/nitroproxy-1", "d1"))
        self.assertFalse(environment.is_complete(self.machine, "/opt/nitroproxy-1", "d2"))

    def test_one_process(self) -> None:
        """Where several processes cannot be had, one compiles."""
        compile_dir = compileall.compile_dir

        def one_only(directory: Path, *, quiet: int, workers: int = 1) -> object:
            if workers != 1:
                raise FileNotFoundError(2, "No such file or directory")
            return compile_dir(directory, quiet=quiet)

        self.patch(compileall, "compile_dir", one_only)
        self.assertEqual(len(list(self.make().glob("lib/*/site-packages/__pycache__/x.*.pyc"))), 1)

    def test_place(self) -> None:
        """An environment of the same version and another content is not touched: the new one has another place."""
        self.assertEqual(environment.place(self.machine, "1", "0123456789"), "/opt/nitroproxy-1")
        self.make(digest="d1")
        self.assertEqual(environment.place(self.machine, "1", "d1"), "/opt/nitroproxy-1")
        self.assertEqual(environment.place(self.machine, "1", "0123456789"), "/opt/nitroproxy-1.01234567")

    def test_not_made(self) -> None:
        """Of an environment that cannot be made nothing is left, and what an interrupted one left is no hindrance."""
        self.wheel.write_bytes(b"nonsense")
        self.assertRaises(Refused, self.make)
        self.assertEqual(os.listdir(self.root / "opt"), [])
        self.machine.environ = {"PATH": "/nonexistent"}
        self.patch(sys, "executable", "/nonexistent/python")
        self.assertIn("cannot be made", str(self.assertRaises(Refused, self.make)))
        self.assertEqual(os.listdir(self.root / "opt"), [])

    def test_interrupted(self) -> None:
        """What an interrupted deployment left is made anew."""
        left = self.root / "opt/nitroproxy-1"
        left.mkdir()
        (left / "half").touch()
        self.assertFalse((self.make() / "half").exists())

    def test_link(self) -> None:
        """The link leads to one environment, then to another, then to none; anything else in its place stays."""
        self.assertIsNone(environment.current(self.machine))
        for directory in ("/opt/nitroproxy-1", "/opt/nitroproxy-2"):
            environment.switch(self.machine, directory)
            self.assertEqual(environment.current(self.machine), directory)
        self.assertEqual(os.readlink(self.root / "opt/nitroproxy"), "nitroproxy-2")
        environment.switch(self.machine, None)
        environment.switch(self.machine, None)
        self.assertIsNone(environment.current(self.machine))
        (self.root / "opt/nitroproxy").mkdir()
        self.assertIn("move it away", str(self.assertRaises(Refused, environment.switch, self.machine, "/opt/x")))
