"""QEMU 11, for the user-creatable vhost-user-test-device: extracted from Debian's backports, not installed, and run by
its own loader, so that any Debian has it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Changes when something else is to be extracted.
_KEY: Final = "qemu-11-1"
_PACKAGES: Final = (
    "libc6",
    "qemu-system-x86/trixie-backports",
    "qemu-system-common/trixie-backports",
    "qemu-system-data/trixie-backports",
    "seabios/trixie-backports",
)

#: A device that another process plays: its name, its socket, and QEMU's device with a place for its chardev.
PlayedDevice = tuple[str, Path, str]


@dataclass(frozen=True)
class Qemu:
    """An extracted emulator."""

    root: Path

    @property
    def command(self) -> list[str]:
        """The start of its command line: the program, and where its firmware is."""
        loader = self.root / "usr/lib64/ld-linux-x86-64.so.2"
        libraries = self.root / "usr/lib/x86_64-linux-gnu"
        program = self.root / "usr/bin/qemu-system-x86_64"
        firmware = ["-L", str(self.root / "usr/share/qemu"), "-L", str(self.root / "usr/share/seabios")]
        return [str(loader), "--library-path", str(libraries), str(program), *firmware]


def cache_directory() -> Path:
    """Where what takes long to make is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nitroproxy"


def find_qemu() -> Qemu:
    """The emulator; extracted on first use, in 10 s. Needs root, mmdebstrap and a Debian mirror then.

    :raises RuntimeError: it cannot be extracted.
    """
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    place = cache / _KEY
    with (cache / "qemu.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            temporary = cache / f"{_KEY}.new"
            shutil.rmtree(temporary, ignore_errors=True)
            _extract(temporary)
            temporary.rename(place)
    return Qemu(place)


def _extract(directory: Path) -> None:
    mirror = os.environ.get("DEBIAN_MIRROR") or _mirror()
    suites = [f"deb {mirror} {suite} main" for suite in ("trixie", "trixie-backports")]
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=extract", f"--include={','.join(_PACKAGES)}"]
    done = subprocess.run([*command, "trixie", str(directory), *suites], check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"QEMU cannot be extracted: {done.stderr.strip()[-800:]}")


def _mirror() -> str:
    """The mirror that apt uses here."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = sorted({line for line in done.stdout.splitlines() if "security" not in line})
    if not found:
        raise RuntimeError("apt has no mirror configured: set DEBIAN_MIRROR to the URL of one")
    return found[0]


def machine(kind: str, memory_mib: int, devices: Sequence[PlayedDevice], *, processors: int = 1) -> list[str]:
    """The arguments for a machine whose memory the played *devices* share."""
    arguments = ["-machine", f"{kind},memory-backend=memory"]
    arguments += ["-object", f"memory-backend-memfd,id=memory,size={memory_mib}M,share=on", "-m", f"{memory_mib}M"]
    for name, path, device in devices:
        arguments += ["-chardev", f"socket,id={name},path={path}", "-device", device.format(chardev=name)]
    return [
        *arguments,
        *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(processors)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
    ]


def clock_arguments() -> str:
    """Kernel arguments: a machine with ACPI in software has no timer that tells the kernel how fast its TSC is, which
    is this machine's, and would wait for one."""
    found = re.search(r"^cpu MHz\s*: (\d+)\.(\d{3})", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    khz = f" tsc_early_khz={found[1]}{found[2]}" if found else ""
    return f"tsc=reliable{khz}"
