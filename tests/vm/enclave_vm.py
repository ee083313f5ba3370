"""The VM in the VM that plays the enclave: a kernel of its own behind vhost-vsock, with the project's entry script."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any, Final

import twisted.plugins

from tests.vm.checks import Failed
from tests.vm.machine import CA_FILE, CONFIGURATION, KEPT, PAYLOAD

CID: Final = 16
MEMORY_MB: Final = 512
_APPLICATION_PORT: Final = 7000
_NOBODYS_PORT: Final = 7001
#: Connections that have to time out, after 2 s each, before a kernel is taken to have stopped.
_KNOCKS: Final = 10
#: What a kernel says when it ends: of a shutdown or a reboot, of a panic, and our own script's word before.
_LAST_WORDS: Final = ("reboot:", "panic", "the entry point has ended")
_ROOT_DISK: Final = "/dev/nvme3n1"
_WORK: Final = Path("/run/enclave")
_KERNEL_ARGUMENTS: Final = (
    "console=ttyS0 quiet loglevel=4 mitigations=off no5lvl random.trust_cpu=on root=/dev/nvme0n1 rootfstype=ext4 rw "
    "init=/opt/guest/enclave.sh"
)


class EnclaveVM:
    """At most one VM, started, frozen, killed and started again."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._killed = False

    def build(self) -> None:
        """Put what an enclave's image has, beyond Debian and the locked dependencies, into a tar file."""
        _WORK.mkdir()
        with tarfile.open(_WORK / "files.tar", "w") as files:
            for file in importlib.metadata.distribution("nitroproxy").files or ():
                path = Path(os.path.normpath(file.locate()))
                files.add(path, str(path))
            cache = Path(twisted.plugins.__file__).with_name("dropin.cache")
            files.add(cache, str(cache))
            files.add(PAYLOAD / "docker" / "enclave-init.sh", "/opt/enclave/enclave-init.sh")
            files.add(PAYLOAD / "tests" / "vm" / "application.py", "/opt/enclave/application.py")
            for path in (CONFIGURATION, CA_FILE):
                files.add(path, str(path))
        size = (_WORK / "files.tar").stat().st_size
        os.truncate(_WORK / "files.tar", -(-size // 4096) * 4096)

    def start(self) -> None:
        """Start it; that it is up shows by its answering."""
        self._starts += 1
        self._killed = False
        arguments = ["qemu-system-x86_64", "-M", "q35", "-accel", "kvm", "-cpu", "host", "-smp", "1"]
        arguments += ["-m", str(MEMORY_MB), "-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]
        arguments += ["-monitor", "none", "-kernel", "/boot/vmlinuz", "-append", _KERNEL_ARGUMENTS]
        arguments += ["-serial", f"file:{self._console}"]
        for number, disk in enumerate((f"snapshot=on,file={_ROOT_DISK}", f"readonly=on,file={_WORK}/files.tar")):
            arguments += ["-drive", f"if=none,id=disk{number},format=raw,{disk}"]
            arguments += ["-device", f"nvme,drive=disk{number},serial={number}"]
        arguments += ["-device", f"vhost-vsock-pci,guest-cid={CID}"]
        self._console.touch()
        with (KEPT / "enclave-qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(_WORK)},
            )

    @property
    def _console(self) -> Path:
        return KEPT / f"enclave-console-{self._starts}.log"

    def console(self) -> str:
        """The console of the last start."""
        return self._console.read_text(errors="replace")

    def ready(self) -> bool:
        """Whether the application has been started.

        :raises Failed: the VM has ended.
        """
        if self._process is None or self._process.poll() is not None:
            raise Failed(f"the enclave's VM has ended: {self.console()[-1000:]}")
        return "application: ready" in self.console()

    def unsound(self) -> str:
        """Whether the emulation of its processor has failed, in words; empty when it has not, or when it does not run.

        No program in the VM can do that. A kernel refuses a connection to a port that nobody listens on, whatever its
        processes do; one whose processor has stopped lets it time out. And a kernel that ends says so on its console,
        be it a shutdown or a panic; a processor that is reset for a fault in handling a fault does not.
        """
        if self._process is None or self._killed:
            return ""
        self.thaw()
        knocks = (self._knock() for _ in range(_KNOCKS))
        answer = next((answer for answer in knocks if answer != errno.ETIMEDOUT), errno.ETIMEDOUT)
        if answer == errno.ETIMEDOUT:
            return "the kernel of the enclave's VM has stopped"
        if answer == errno.ENODEV:  # there is no VM: its process has ended, or is about to
            self._process.wait(20)
            if not any(word in self.console() for word in _LAST_WORDS):
                return "the enclave's VM has ended without a word of its kernel"
        return ""

    @staticmethod
    def _knock() -> int:
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as knocking:
            return knocking.connect_ex((CID, _NOBODYS_PORT))

    def freeze(self) -> None:
        """Stop its processors."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power failure does."""
        self._killed = True
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(20)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def ask(self, do: str, limit: float = 60, **arguments: object) -> dict[str, Any]:
        """Have the application in the enclave do something; what it says.

        :raises Failed: it could not.
        """
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as connection:
            connection.settimeout(limit)
            connection.connect((CID, _APPLICATION_PORT))
            connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer: dict[str, Any] = json.loads(lines.readline())
        if "error" in answer:
            raise Failed(f"{do} in the enclave: {answer['error']}")
        return answer

    def clear(self) -> None:
        """End it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
