"""Which nitroproxy runs: its version, and whether it is the pure or the compiled build (``setup.py``)."""

from __future__ import annotations

from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec

from nitroproxy import __version__


def version_text() -> str:
    """What ``--version`` prints: ``nitroproxy 0.1.0``, of the compiled build ``nitroproxy 0.1.0 (compiled)``."""
    return f"nitroproxy {__version__}{' (compiled)' if is_compiled() else ''}"


def is_compiled() -> bool:
    """Whether this is the build whose engine mypyc has compiled."""
    spec = find_spec("nitroproxy.target")
    return spec is not None and isinstance(spec.loader, ExtensionFileLoader)
