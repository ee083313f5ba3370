"""What the machine around two VMs does for the one that plays the parent: it builds, starts, freezes and kills the
enclave. Asked with a line of JSON on a UNIX socket, which the parent's VM reaches at CID 2.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.nitro.derive import derive_for_tests
from tests.nitro.enclave import EmulatedEnclave
from tests.nitro.qemu import Qemu

PORT: Final = 9100
#: The memory of the enclave in MiB.
MEMORY_MIB: Final = 512


class Hypervisor:
    """Serves one parent.

    :param base: the image that `scripts/build.sh enclave` has made.
    :param directory: with a short path, for UNIX sockets.
    """

    def __init__(self, qemu: Qemu, base: Path, directory: Path) -> None:
        self.parent_socket = directory / "parent.sock"
        self._base = base
        self._image = directory / "test.eif"
        self._enclave = EmulatedEnclave(qemu, self._image, directory / "t", (), parent_socket=self.parent_socket)
        self._orders: Mapping[str, Callable[..., Mapping[str, object]]] = {
            "build": self._build,
            "start": self._start,
            "freeze": self._do(self._enclave.freeze),
            "thaw": self._do(self._enclave.thaw),
            "kill": self._do(self._enclave.kill),
            "state": self._state,
            "console": self._console,
        }

    def open(self) -> None:
        """Start the vsock device and the service."""
        self._enclave.start_switch()
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self._enclave.directory / "host" / f"{PORT}.sock"))
        listening.listen(16)
        threading.Thread(target=self._serve, args=(listening,), daemon=True).start()

    def close(self) -> None:
        """End the enclave and the device."""
        self._enclave.close()

    def _serve(self, listening: socket.socket) -> None:
        while True:
            connection, _ = listening.accept()
            with connection, connection.makefile("rwb") as lines:
                answer: Mapping[str, object]
                try:
                    order = json.loads(lines.readline())
                    answer = self._orders[order.pop("do")](**order)
                except Exception as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                lines.write(json.dumps(answer).encode() + b"\n")

    @staticmethod
    def _do(action: Callable[[], object]) -> Callable[..., Mapping[str, object]]:
        def do() -> Mapping[str, object]:
            action()
            return {}

        return do

    def _build(self, ca: str, limits: Mapping[str, object]) -> Mapping[str, object]:
        return derive_for_tests(self._base, self._image, ca.encode(), "65532", limits).to_dict()

    def _start(self) -> Mapping[str, object]:
        self._enclave.start(memory_mib=MEMORY_MIB)
        return {}

    def _state(self) -> Mapping[str, object]:
        return {"running": self._enclave.exit_status is None}

    def _console(self) -> Mapping[str, object]:
        path = self._enclave.console
        return {"console": path.read_text(errors="replace")[-100_000:] if path.exists() else ""}
