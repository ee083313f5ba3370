"""What ``--version`` says of the build: `nitroproxy.version`."""

from __future__ import annotations

import importlib
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy import __version__, version

#: Where mypyc's traps are known and the gain is, or where each request passes.
_HOT = ("http1.reader", "proxy.downstream", "proxy.exchange", "proxy.upstream", "proxy.tunnel", "target")


class VersionTests(SynchronousTestCase):
    """Both builds."""

    def test_this_build(self) -> None:
        """It is of the whole build that it speaks: the modules that each request passes are of one kind."""
        files = [importlib.import_module(f"nitroproxy.{name}").__file__ for name in _HOT]
        suffixes = {Path(file).suffix for file in files if file is not None}
        self.assertEqual(suffixes, {".so"} if version.is_compiled() else {".py"})

    def test_text(self) -> None:
        """The compiled build says so, the pure one adds nothing."""
        compiled = ModuleSpec("x", ExtensionFileLoader("x", "x.so"))
        for spec, text in ((compiled, " (compiled)"), (ModuleSpec("x", None), "")):
            self.patch(version, "find_spec", lambda name, spec=spec: spec)
            self.assertEqual(version.version_text(), f"nitroproxy {__version__}{text}")
