"""Installs the peers of the benchmarks: Debian packages if run as root, Python packages into a virtual environment of
their own, and our Go programs if there is a Go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from benchmarks.processes import DAEMONS_PATH, ROOT

#: What is installed here stays for the next run; `scripts/dev.sh clean` removes it.
_KEPT: Final = ROOT / ".bench"
#: The virtual environment of the peers from PyPI.
ENVIRONMENT: Final = _KEPT / "venv"
#: The Go program of `benchmarks/gopeers`.
GO_PEERS: Final = _KEPT / "gopeers"

#: Debian packages by the command that is needed from each.
_DEBIAN: Final = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "caddy": "caddy",
    "socat": "socat",
    "wrk": "wrk",
    "openssl": "openssl",
}
_DEBIAN_FORWARD: Final = {"squid": "squid", "tinyproxy": "tinyproxy"}
_PYTHON: Final = ("py-spy",)
_PYTHON_FORWARD: Final = ("mitmproxy", "proxy.py")


def install(*, forward: bool) -> list[str]:
    """Install what is missing.

    :param forward: also the forward proxies (`benchmarks.forward_peers`).
    :returns: messages about what could not be installed. The cases that need it report that themselves.
    """
    troubles = [_debian(_DEBIAN | (_DEBIAN_FORWARD if forward else {}))]
    troubles.append(_python((*_PYTHON, *(_PYTHON_FORWARD if forward else ()))))
    troubles.append(_go())
    return [trouble for trouble in troubles if trouble is not None]


def _debian(wanted: Mapping[str, str]) -> str | None:
    packages = [package for command, package in wanted.items() if shutil.which(command, path=DAEMONS_PATH) is None]
    if not packages:
        return None
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return f"not installed, and this is not root on Debian: {', '.join(packages)}"
    # RUNLEVEL=1 keeps Debian's scripts from starting the daemons that are installed.
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    trouble = _run(["apt-get", "update", "-qq"], quiet)
    return trouble or _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], quiet)


def _python(packages: tuple[str, ...]) -> str | None:
    complete = ENVIRONMENT / "complete"
    if complete.exists() and set(packages) <= set(complete.read_text().split()):
        return None
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    trouble = _run([sys.executable, "-m", "venv", str(ENVIRONMENT)], os.environ)
    trouble = trouble or _run([str(ENVIRONMENT / "bin/pip"), "install", "--quiet", *packages], os.environ)
    if trouble is None:
        complete.write_text(" ".join(packages))
    return trouble


def _go() -> str | None:
    if shutil.which("go") is None:
        return "there is no go: the Go peers are not measured"
    return _run(["go", "build", "-C", str(ROOT / "benchmarks/gopeers"), "-o", str(GO_PEERS), "."], os.environ)


def _run(command: list[str], environment: Mapping[str, str]) -> str | None:
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    return f"{' '.join(command[:2])} failed: {lines[-1] if lines else done.returncode}"
