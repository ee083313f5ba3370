"""Finishes an installation below a root: run by the image's own Python, or by another 3.11 with the root as argument.

It imports every module of nitroproxy, so that what docker/trim.txt removed too much shows while building; caches
Twisted's plugins, since the root is read-only later; and compiles everything to bytecode that is valid at any time.
"""

from __future__ import annotations

import compileall
import importlib
import os
import pkgutil
import sys
from pathlib import Path
from py_compile import PycInvalidationMode


def main(root: Path) -> None:
    """Finish what is below *root*."""
    for place in ("opt/nitroproxy/lib/python3.11/site-packages", "usr/lib/python3.11", "usr/local/lib/python3.11"):
        if (root / place).is_dir():
            compileall.compile_dir(
                root / place,
                quiet=1,
                stripdir=str(root) if root != Path("/") else None,
                invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
            )
    nitroproxy = importlib.import_module("nitroproxy")
    for module in pkgutil.walk_packages(nitroproxy.__path__, "nitroproxy."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    plugins = importlib.import_module("twisted.plugin")
    names = {getattr(plugin, "tapname", "") for plugin in plugins.getPlugins(plugins.IPlugin)}
    if missing := {"nitroproxy-host", "nitroproxy-enclave"} - names:
        sys.exit(f"finish.py: Twisted does not find the plugins {', '.join(sorted(missing))}")

    plugin_directory = root / "opt/nitroproxy/lib/python3.11/site-packages/twisted/plugins"
    for path in plugin_directory.glob("*.py"):
        os.utime(path, (0, 0))  # Twisted believes a cache that is newer than the plugins


if __name__ == "__main__":
    main(Path(sys.argv[1]))
