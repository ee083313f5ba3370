"""An emulated enclave: the image's own kernel, command line and ramdisks in a small machine, with a vsock device and a
Nitro Secure Module beside it. Started, frozen, killed and started again.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nitroproxy.image.extract import extract_image
from nitroproxy.image.layout import Kind
from nitroproxy.image.reader import Image
from tests.nitro.qemu import Qemu, clock_arguments, machine

CID: Final = 16
_ROOT: Final = Path(__file__).resolve().parent.parent.parent
#: Seconds for a played device to make its socket.
_DEVICE_TIMEOUT: Final = 30.0


class EmulatedEnclave:
    """One enclave at a time.

    :param directory: gets ``host`` and ``enclave`` of nitroproxy's unix transport, ``console.txt`` and ``root.pem``.
    :param ports: the enclave's vsock ports that get a socket.
    :param parent_socket: where the VM that plays the parent connects to its vsock device; None: this machine is it.
    """

    def __init__(
        self, qemu: Qemu, image: Path, directory: Path, ports: Sequence[int], parent_socket: Path | None = None
    ) -> None:
        self.directory = directory
        self.image = image
        self.starts = 0
        self._qemu = qemu
        self._ports = ports
        self._parent_socket = parent_socket
        self._children: list[subprocess.Popen[bytes]] = []
        self._vm: subprocess.Popen[bytes] | None = None
        self._nsm: subprocess.Popen[bytes] | None = None
        for name in ("host", "enclave"):
            (directory / name).mkdir(parents=True, exist_ok=True)

    @property
    def console(self) -> Path:
        """What the enclave has printed since its last start."""
        return self.directory / f"console-{self.starts}.txt"

    @property
    def root_pem(self) -> bytes:
        """The root of its attestation documents' chain."""
        return (self.directory / "root.pem").read_bytes()

    @property
    def exit_status(self) -> int | None:
        """QEMU's, when the enclave has ended."""
        return None if self._vm is None else self._vm.poll()

    def start_switch(self) -> None:
        """Start the vsock device, which outlives the enclaves."""
        place = self.directory / "vsock.sock"
        arguments = [f"{CID}={place}"]
        if self._parent_socket is None:
            arguments = [",".join([arguments[0], str(self.directory), *map(str, self._ports)])]
        else:
            arguments.append(f"3={self._parent_socket},{self.directory}")
        self._play("vswitch", "tests.nitro.vswitch", str(self.directory / "control.sock"), *arguments)
        self._await(place)

    def start(self, *, memory_mib: int = 512) -> Image:
        """Boot the image; returns what is in it."""
        self.starts += 1
        parts = self.directory / "parts"
        shutil.rmtree(parts, ignore_errors=True)
        found = extract_image(self.image, parts)
        count = sum(section.kind is Kind.RAMDISK for section in found.sections)
        with (parts / "initrd").open("wb") as initrd:
            for number in range(count):
                initrd.write((parts / f"ramdisk-{number}").read_bytes())
        module = self.directory / "nsm.sock"
        module.unlink(missing_ok=True)
        places = [module, self.directory / "nsm-control.sock", self.directory / "root.pem", self.image]
        self._nsm = self._play("nsm", "tests.nitro.nsm", *map(str, places))
        self._await(module)
        devices = [
            ("vsock", self.directory / "vsock.sock", "vhost-user-vsock-device,chardev={chardev}"),
            ("nsm", module, "vhost-user-test-device,chardev={chardev},virtio-id=33,num_vqs=1,vq_size=64"),
        ]
        boot = ["-kernel", str(parts / "kernel"), "-initrd", str(parts / "initrd")]
        boot += ["-append", f"{found.cmdline} {clock_arguments()}", "-serial", f"file:{self.console}"]
        command = [*self._qemu.command, *machine("microvm,acpi=on", memory_mib, devices), *boot]
        self._vm = self._spawn("qemu", command)
        return found

    def fault(self, word: str) -> None:
        """Have the vsock device do what *word* says, see `tests.nitro.vswitch`."""
        self._tell("control.sock", word)

    def module(self, variant: str) -> None:
        """Have the Nitro Secure Module be another variant, see `tests.nitro.nsm`."""
        self._tell("nsm-control.sock", variant)

    def _tell(self, name: str, word: str) -> None:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(10)
            control.connect(str(self.directory / name))
            control.sendall(f"{word}\n".encode())
            if control.recv(100) != b"ok\n":
                raise ValueError(f"{name}: {word!r} is unknown")

    def freeze(self) -> None:
        """Stop its processor."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power failure does."""
        self._signal(signal.SIGKILL)
        assert self._vm is not None
        self._vm.wait(20)
        self._end(self._nsm)

    def wait(self, seconds: float) -> int:
        """Wait until it has ended by itself; QEMU's status.

        :raises subprocess.TimeoutExpired: it has not.
        """
        assert self._vm is not None
        status = self._vm.wait(seconds)
        self._end(self._nsm)
        return status

    def close(self) -> None:
        """End everything."""
        for child in reversed(self._children):
            self._end(child)

    def _signal(self, number: signal.Signals) -> None:
        assert self._vm is not None
        self._vm.send_signal(number)

    def _end(self, child: subprocess.Popen[bytes] | None) -> None:
        if child is not None and child.poll() is None:
            child.kill()
            child.wait(20)

    def _play(self, name: str, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        return self._spawn(name, [sys.executable, "-m", module, *arguments])

    def _spawn(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                command,
                cwd=_ROOT,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children.append(child)
        return child

    @staticmethod
    def _await(path: Path) -> None:
        started = time.monotonic()
        while not path.exists():
            if time.monotonic() - started > _DEVICE_TIMEOUT:
                raise TimeoutError(f"{path} was not made within {_DEVICE_TIMEOUT:g} s")
            time.sleep(0.02)
