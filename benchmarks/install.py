"""Installs the peers of the benchmarks: Debian packages if run as root, Python packages into a virtual environment of
their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

#: Debian packages by the command that is needed from each.
_DEBIAN: Final = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "squid": "squid",
    "tinyproxy": "tinyproxy",
    "socat": "socat",
    "wrk": "wrk",
    "openssl": "openssl",
}
_PYTHON: Final = ("mitmproxy", "proxy.py", "py-spy")


def missing_commands() -> list[str]:
    """The commands of Debian packages that are missing."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [command for command in _DEBIAN if shutil.which(command, path=path) is None]


def install(environment: Path) -> list[str]:
    """Install what is missing.

    :param environment: where the virtual environment goes; kept for the next run.
    :returns: messages about what could not be installed. The cases that need it report that themselves.
    """
    troubles = []
    missing = missing_commands()
    if missing:
        packages = [_DEBIAN[command] for command in missing]
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            troubles.append(f"not installed, and this is not root on Debian: {', '.join(packages)}")
        else:
            # RUNLEVEL=1 keeps Debian's scripts from starting the daemons that are installed.
            quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
            for command in (
                ["apt-get", "update", "-qq"],
                ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
            ):
                trouble = _run(command, quiet)
                if trouble is not None:
                    troubles.append(trouble)
    if not (environment / "complete").exists():
        shutil.rmtree(environment, ignore_errors=True)
        trouble = _run([sys.executable, "-m", "venv", str(environment)], os.environ)
        trouble = trouble or _run([str(environment / "bin/pip"), "install", "--quiet", *_PYTHON], os.environ)
        if trouble is None:
            (environment / "complete").touch()
        else:
            troubles.append(trouble)
    return troubles


def _run(command: list[str], environment: Mapping[str, str]) -> str | None:
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    return f"{' '.join(command[:2])} failed: {lines[-1] if lines else done.returncode}"
