"""The enclave as its parent's VM sees it: vsock to CID 16, and what only the machine around both can do to it.

That machine is asked over vsock too, at CID 2: see `tests.nitro.hypervisor`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from tests.vm.application import PORT as APPLICATION_PORT
from tests.vm.checks import Failed
from tests.vm.machine import CA_FILE, KEPT

CID: Final = 16
_MACHINE: Final = 2
_HYPERVISOR_PORT: Final = 9100


class EnclaveVM:
    """At most one enclave, started, frozen, killed and started again."""

    def build(self, limits: Mapping[str, object]) -> None:
        """Have the image made, with the CA of this VM's upstream and *limits* in its configuration."""
        self._order("build", ca=CA_FILE.read_text(), limits=limits)

    def start(self) -> None:
        """Boot the image; that it is up shows by the application's answering."""
        self._order("start")

    def freeze(self) -> None:
        """Stop its processor."""
        self._order("freeze")

    def thaw(self) -> None:
        """Let it go on."""
        self._order("thaw")

    def kill(self) -> None:
        """End it as a power failure does."""
        self._order("kill")

    def keep(self) -> None:
        """Keep its console with the stage's results."""
        with suppress(Failed, OSError):
            (KEPT / "enclave-console.log").write_text(self._order("console")["console"])

    def ready(self) -> bool:
        """Whether the application answers.

        :raises Failed: the enclave has ended.
        """
        state = self._order("state")
        if not state["running"]:
            raise Failed(f"the enclave has ended: {self._order('console')['console'][-1000:]}")
        with suppress(Failed, OSError, ValueError):
            return "uid" in self.ask("identity", limit=10)
        return False

    def ask(self, do: str, limit: float = 60, **arguments: object) -> dict[str, Any]:
        """Have the application in the enclave do something; what it says.

        :raises Failed: it could not.
        """
        return _ask((CID, APPLICATION_PORT), limit, {"do": do, **arguments})

    def _order(self, do: str, **arguments: object) -> dict[str, Any]:
        return _ask((_MACHINE, _HYPERVISOR_PORT), 60, {"do": do, **arguments})


def _ask(place: tuple[int, int], limit: float, question: dict[str, object]) -> dict[str, Any]:
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as connection:
        connection.settimeout(limit)
        connection.connect(place)
        connection.sendall(json.dumps(question).encode() + b"\n")
        with connection.makefile("rb") as lines:
            line = lines.readline()
    if not line:
        raise Failed(f"{question['do']}: the connection ended without an answer")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise Failed(f"{question['do']}: {answer['error']}")
    return answer
