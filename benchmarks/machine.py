"""Describes the machine of a run, and how much of its CPU time other programs took during the run."""

from __future__ import annotations

import os
import platform
import re
import ssl
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path
from typing import Final

from OpenSSL import SSL

from nitroproxy.version import version_text

#: The command that prints each program's version.
_VERSIONS: Final[dict[str, list[str]]] = {
    "nginx": ["nginx", "-v"],
    "haproxy": ["haproxy", "-v"],
    "squid": ["squid", "-v"],
    "tinyproxy": ["tinyproxy", "-v"],
    "caddy": ["caddy", "version"],
    "go": ["go", "version"],
    "socat": ["socat", "-V"],
    "wrk": ["wrk", "-v"],
    "openssl": ["openssl", "version"],
}


def machine() -> dict[str, str]:
    """A short description of the machine, by property."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory[1]) / 1048576:.0f} GiB" if memory else "unknown",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "load": f"{os.getloadavg()[0]:.2f}",
    }


def versions(commands: Path) -> dict[str, str]:
    """The versions of the contenders that are installed.

    :param commands: where the virtual environment of the peers has its commands.
    """
    found = {
        "nitroproxy": version_text().removeprefix("nitroproxy "),
        "python": f"{platform.python_version()} ({_build()})",
        "twisted": version("twisted"),
        "openssl of the enclave": str(SSL.OpenSSL_version(SSL.OPENSSL_VERSION), "ascii"),
        "openssl of python": ssl.OPENSSL_VERSION,
    }
    asked = _VERSIONS | {"mitmproxy": [str(commands / "mitmdump"), "--version"]}
    asked["proxy.py"] = [str(commands / "proxy"), "--version"]
    for name, command in asked.items():
        number = _ask(command)
        if number is not None:
            found[name] = number
    return found


def _build() -> str:
    """Where the Python is, and what its configure script was asked for: one built without optimisation is slower.
    Debian's does it without asking."""
    asked = sysconfig.get_config_var("CONFIG_ARGS") or ""
    options = [option for option in ("--enable-optimizations", "--with-lto") if option in asked]
    return f"{sys.base_prefix}, configured {' '.join(options) or 'without --enable-optimizations'}"


def _ask(command: list[str]) -> str | None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=os.environ | {"PATH": path}, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\d+\.\d+(\.\d+)*", done.stdout + done.stderr)
    return match[0] if match else None


def commit(root: Path) -> str:
    """The commit that was measured, followed by "+" when the tree has uncommitted changes."""
    try:
        name = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no", "nitroproxy", "benchmarks/cases"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip() + ("+" if changed.stdout.strip() else "")


class Disturbance:
    """The shares, from 0 to 1, of the machine's CPU time that others took since this object was made."""

    def __init__(self) -> None:
        self._before = _cpu_line()
        self._ours = _own_ticks()

    def shares(self) -> tuple[float, float]:
        """The share that the hypervisor gave to other machines, and the share used by processes of this machine other
        than ended children of this process."""
        now = _cpu_line()
        passed = [after - before for before, after in zip(self._before, now, strict=True)]
        total = max(1, sum(passed[:8]))
        busy = total - passed[3] - passed[4] - passed[7]
        return passed[7] / total, max(0.0, (busy - (_own_ticks() - self._ours)) / total)


def _own_ticks() -> float:
    used = os.times()
    return (used.user + used.system + used.children_user + used.children_system) * os.sysconf("SC_CLK_TCK")


def _cpu_line() -> list[int]:
    return [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
