"""Whether memory, processors, the CID and the port are there for the enclave and the host daemon."""

from __future__ import annotations

import re
import socket
from typing import Any

from nitroproxy.commands.nitro_cli import NitroCLI, NitroError
from nitroproxy.deploy.allocator import FILE, SERVICE, Pool, cpu_list, read_pool
from nitroproxy.deploy.failure import Refused, Status
from nitroproxy.deploy.machine import Machine

_POOL_FILE = "/sys/module/nitro_enclaves/parameters/ne_cpus"


def running_enclaves(machine: Machine) -> list[dict[str, Any]]:
    """The enclaves of this instance.

    :raises Refused: when nitro-cli cannot tell.
    """
    try:
        return NitroCLI(environ=machine.environ).enclaves()
    except NitroError as error:
        raise Refused(Status.INSTANCE, str(error), "\n".join(error.logs)) from error


def threads_per_core(machine: Machine) -> int:
    """How many processors a core has; CPU 0 is never an enclave's and therefore always there."""
    text = machine.read("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list") or "0"
    return len(cpu_list(text)) or 1


def check_cores(machine: Machine, cpu_count: int) -> None:
    """Refuse a number of processors that is not one of whole cores.

    :raises Refused: with the number to set.
    """
    threads = threads_per_core(machine)
    if cpu_count % threads:
        whole = -(-cpu_count // threads) * threads
        raise Refused(
            Status.RESOURCES,
            f"enclave.cpu_count: {cpu_count} is no number of whole cores, of {threads} threads each; set {whole}",
        )


def short_of(machine: Machine, memory_mb: int, cpu_count: int) -> str:
    """What the allocator has to set aside more, for a person; empty when it is enough.

    :raises Refused: as `read_pool`.
    """
    pool = read_pool(machine)
    lacks = []
    if pool.memory_mib < memory_mb:
        lacks.append(f"memory_mib: {pool.memory_mib} is less than enclave.memory_mb, {memory_mb}")
    if pool.cpus < cpu_count:
        lacks.append(
            f"{'cpu_pool' if pool.named else 'cpu_count'}: {pool.cpus} is less than enclave.cpu_count, {cpu_count}"
        )
    return f"{FILE}: {'; '.join(lacks)}" if lacks else ""


def check_pool(machine: Machine, memory_mb: int, cpu_count: int, own: dict[str, Any] | None) -> str:
    """Refuse when what is set aside is not enough, or not free; returns what there is.

    :param own: the enclave that this deployment replaces; what it has will be free.
    :raises Refused: with what to change.
    """
    lack = short_of(machine, memory_mb, cpu_count)
    if lack:
        raise Refused(
            Status.RESOURCES,
            f"{lack}; edit it and systemctl restart {SERVICE}, or run deploy.sh --allocate, while no enclave runs",
        )
    free = free_huge_pages_mib(machine)
    given_back = int(own["MemoryMiB"]) if own is not None else 0
    if free is not None and free + given_back < memory_mb:
        raise Refused(
            Status.RESOURCES,
            f"{free} MiB of huge pages are free, and enclave.memory_mb is {memory_mb}: systemctl restart {SERVICE} "
            "while no enclave runs, or end another enclave (nitro-cli describe-enclaves)",
        )
    offline = cpu_list(machine.read(_POOL_FILE) or "")
    if machine.read(_POOL_FILE) is not None and len(offline) < cpu_count:
        raise Refused(
            Status.RESOURCES,
            f"{len(offline)} CPUs are set aside, and enclave.cpu_count is {cpu_count}: systemctl restart {SERVICE}",
        )
    pool: Pool = read_pool(machine)
    return f"{pool.memory_mib} MiB and {pool.cpus} CPUs are set aside"


def free_huge_pages_mib(machine: Machine) -> int | None:
    """MiB of huge pages that nobody uses; None when this kernel does not say."""
    found = sorted(machine.path("/sys/kernel/mm/hugepages").glob("hugepages-*kB/free_hugepages"))
    kib = 0
    for path in found:
        size = re.search(r"hugepages-(\d+)kB", str(path))
        kib += int(path.read_text()) * int(size[1]) if size else 0
    return kib // 1024 if found else None


def check_cid(cid: int, enclaves: list[dict[str, Any]], own: dict[str, Any] | None) -> None:
    """Refuse a fixed CID that another enclave has.

    :raises Refused: naming that enclave.
    """
    for enclave in enclaves:
        if cid and enclave.get("EnclaveCID") == cid and enclave is not own:
            raise Refused(
                Status.RESOURCES,
                f"enclave.cid: {cid} is that of the enclave {enclave.get('EnclaveID')}; set 0, for one that is free",
            )


def check_port(interface: str, port: int) -> None:
    """Refuse a port that another program has. Only for a gateway that does not run yet.

    :raises Refused: naming the port.
    """
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((interface, port))
            listening.listen()
        except OSError as error:
            raise Refused(
                Status.RESOURCES,
                f"the gateway's port {port} on {interface} cannot be had: {error.strerror}; see ss -ltnp, or set "
                "host_proxy.port",
            ) from error
