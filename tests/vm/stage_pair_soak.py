"""The stage ``pair-soak``: the soak between two VMs, for as long as asked.

As in `tests.vm.stage_pair` the guest is the parent instance, with the host daemon under systemd, and the enclave is
the real image beside it. Clients, destination and faults on the way to it are here; the enclave's proxy is reached over
vsock, which serves its parent as it serves its own loopback.

Not one of those that run without being named.
"""

from __future__ import annotations

import asyncio
import os
import resource
import ssl
from pathlib import Path
from types import TracebackType
from typing import Final

from nitroproxy.demo.certificates import ThrowAwayAuthority
from tests.load.client import Connection
from tests.load.faults import FaultProxy
from tests.load.soak import TIMES, soak_in
from tests.load.stages import Failed as Bad
from tests.load.upstream import Upstream
from tests.vm.checks import Check, Failed, run_checks
from tests.vm.enclave_vm import CID
from tests.vm.machine import CA_FILE, HOST, descriptors
from tests.vm.stage_pair import Pair, enclave_starts, host_starts, modules_are_there

_CERTIFICATE: Final = Path("/run/soak-upstream.pem")
_ENCLAVE: Final = (CID, 5000)
#: Each of the soak's limits, in seconds: two emulated machines are slower than one.
_PATIENCE: Final = 10


class _Soaked(Pair):
    """Both VMs; the destination is the soak's own."""

    def start_upstream(self) -> str:
        """Make the destination's certificate, and have its CA trusted; it listens when the soak begins."""
        authority = ThrowAwayAuthority()
        CA_FILE.parent.mkdir(exist_ok=True)
        CA_FILE.write_bytes(authority.pem)
        CA_FILE.chmod(0o644)
        _CERTIFICATE.write_bytes(authority.issue().pem)
        return ""


class _Surroundings:
    """The pair, as the soak asks for it; an asynchronous context manager."""

    gateway = 8080

    def __init__(self, machine: Pair) -> None:
        self._machine = machine
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(_CERTIFICATE)
        self._upstream = Upstream(server)
        self._context = ssl.create_default_context(cafile=str(CA_FILE))
        self._to_upstream = FaultProxy(0)
        self._port = 0

    async def __aenter__(self) -> _Surroundings:
        self._to_upstream.onward = await self._upstream.listen()
        self._port = await self._to_upstream.listen(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._to_upstream.close()
        await self._upstream.close()

    @property
    def ways(self) -> tuple[FaultProxy, ...]:
        return (self._to_upstream,)

    async def path_form(self) -> Connection:
        return await Connection.path_form(self.gateway, f"https://localhost:{self._port}")

    async def enclave_path_form(self) -> Connection:
        return await Connection.path_form(_ENCLAVE, f"https://localhost:{self._port}")

    async def tunnel(self) -> Connection:
        return await Connection.tunnel(_ENCLAVE, self._port, self._context)

    async def descriptors(self) -> dict[str, int]:
        asked = await asyncio.to_thread(self._machine.enclave.ask, "descriptors")
        return {"host": descriptors(self._machine.pid(HOST)), "enclave": asked["count"]}

    async def residents(self) -> dict[str, int]:
        asked = await asyncio.to_thread(self._machine.enclave.ask, "descriptors")
        pages = int(Path(f"/proc/{self._machine.pid(HOST)}/statm").read_text().split()[1])
        return {"host": pages * resource.getpagesize(), "enclave": asked["resident"]}

    def tracebacks(self) -> int:
        return self._machine.journal(HOST).count("Traceback (most recent call last)")


def soak(machine: Pair) -> str:
    """Load for VM_SECONDS: no wrong byte, no mixed answers, accounts that agree, nothing left."""
    told: list[str] = []

    async def run() -> None:
        async with _Surroundings(machine) as surroundings:
            await soak_in(surroundings, float(os.environ["VM_SECONDS"]), say=told.append)

    try:
        asyncio.run(run())
    except Bad as bad:
        raise Failed(f"wanted {bad}; {'; '.join(told)}") from bad
    return "; ".join(told)


def run_stage() -> None:
    """Run the stage."""
    machine = _Soaked(dict.fromkeys(TIMES, _PATIENCE))
    checks = (
        Check(modules_are_there, vital=True),
        Check(host_starts, limit=300, vital=True),
        Check(enclave_starts, limit=400, vital=True),
        Check(soak, limit=int(os.environ["VM_SECONDS"]) + 240),
    )
    try:
        run_checks(machine, checks)
    finally:
        machine.enclave.keep()
        machine.keep(HOST)
