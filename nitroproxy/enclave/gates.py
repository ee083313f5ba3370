"""What must hold before an enclave may have an identity: the gates. One that fails keeps the daemon from listening.

An enclave has only what its hypervisor gives it. The NSM must answer and be a source of entropy, and the time must be
the hypervisor's: a host that could set the clock could have expired certificates accepted, and revive old ones. The
host is never asked. Pure but for the machine: no Twisted; blocks.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nitroproxy.attestation import Refused
from nitroproxy.attestation.document import Document, read_document
from nitroproxy.attestation.policy import is_debug
from nitroproxy.enclave.nsm_device import NsmDevice, NsmError
from nitroproxy.enclave.ptp import DEVICE, read_ptp

#: The kernel's directory of its clock sources.
CLOCKS: Final = Path("/sys/devices/system/clocksource/clocksource0")
#: Seconds that the system's time may differ from the hypervisor's clock, and from a document's timestamp.
PTP_SECONDS: Final = 1.0
DOCUMENT_SECONDS: Final = 5.0

_KVM_CLOCK: Final = "kvm-clock"
#: The clock sources that a Nitro hypervisor gives, by architecture.
_CLOCK_SOURCES: Final[Mapping[str, str]] = {"x86_64": _KVM_CLOCK, "aarch64": "arch_sys_counter"}
#: Architectures of which AWS's enclave kernels have ptp_kvm: elsewhere there may be no /dev/ptp0.
_WITH_PTP: Final = frozenset({"x86_64"})


class GateFailed(Exception):
    """A gate has failed; the message names it, says why, and what to do."""

    def __init__(self, gate: str, why: str) -> None:
        super().__init__(f"attestation: the gate {gate!r} has failed: {why}")


@dataclass(frozen=True)
class Machine:
    """What the gates look at besides the NSM. Tests put stand-ins in its place.

    :ivar clocks: sysfs's directory of the clock sources.
    :ivar ptp: the hypervisor's clock.
    :ivar entropy: the kernel's pool of entropy.
    :ivar architecture: the machine's.
    :ivar now: the system's time, in seconds since the epoch.
    :ivar read_ptp: reads the clock at a path, in nanoseconds since the epoch; raises OSError.
    """

    clocks: Path = field(default_factory=lambda: CLOCKS)
    ptp: str = DEVICE
    entropy: str = "/dev/random"
    architecture: str = field(default_factory=platform.machine)
    now: Callable[[], float] = time.time
    read_ptp: Callable[[str], int] = read_ptp


@dataclass(frozen=True)
class Passed:
    """The gates have let the enclave through.

    :ivar module_id: the NSM's name.
    :ivar debug: the enclave runs in debug mode: its documents prove no image.
    """

    module_id: str
    debug: bool


def pass_gates(device: NsmDevice, *, emulated: bool, machine: Machine | None = None) -> Passed:
    """Pass every gate, in order. Blocks for as long as the NSM takes.

    :param emulated: ``attestation.emulated``: there is no clock of a Nitro hypervisor, and only a document tells the
        time.
    :raises GateFailed: for the first that fails.
    """
    machine = machine or Machine()
    try:
        module_id = device.describe().module_id
        _check_entropy(device, machine)
        _check_clock_source(machine, emulated=emulated)
        if not emulated:
            _check_ptp(machine)
        document = _check_document(device, machine)
    except NsmError as error:
        raise GateFailed("nsm", str(error)) from error
    return Passed(module_id, is_debug(document.pcrs))


def _check_entropy(device: NsmDevice, machine: Machine) -> None:
    """The NSM gives random bytes, of which the kernel gets some too; and the kernel's own source is seeded."""
    first, second = device.random(), device.random()
    if first == second or not any(first) or not any(second):
        raise GateFailed("random", "the NSM has given the same bytes twice, or zeros: it is no source of entropy")
    try:
        with open(machine.entropy, "wb", buffering=0) as pool:
            pool.write(first + second)
    except OSError as error:
        raise GateFailed("random", f"{machine.entropy} does not take the NSM's bytes: {error.strerror}") from error
    try:
        os.getrandom(1, os.GRND_NONBLOCK)
    except OSError as error:
        raise GateFailed("random", "the kernel's random numbers are not seeded yet (getrandom would block)") from error


def _check_clock_source(machine: Machine, *, emulated: bool) -> None:
    try:
        current = (machine.clocks / "current_clocksource").read_text().strip()
        available = (machine.clocks / "available_clocksource").read_text().split()
    except OSError as error:
        raise GateFailed("clocksource", f"{error.filename} cannot be read: {error.strerror}") from error
    if emulated:
        if _KVM_CLOCK in available:
            why = f"attestation.emulated is true, but this machine has {_KVM_CLOCK}: set it to false on a Nitro enclave"
            raise GateFailed("clocksource", why)
        return
    wanted = _CLOCK_SOURCES.get(machine.architecture)
    if wanted is None:
        raise GateFailed("clocksource", f"there are no Nitro enclaves on {machine.architecture}")
    if current != wanted:
        why = f"the kernel keeps time by {current!r}, not by the hypervisor's {wanted}; in an emulated enclave set "
        raise GateFailed("clocksource", f"{why}attestation.emulated to true")


def _check_ptp(machine: Machine) -> None:
    """The system's time is the hypervisor's."""
    try:
        before = machine.now()
        clock = machine.read_ptp(machine.ptp) / 1e9
        after = machine.now()
    except FileNotFoundError as error:
        if machine.architecture not in _WITH_PTP:
            return  # A document alone tells the time.
        raise GateFailed(
            "clock", f"there is no {machine.ptp}: the kernel needs ptp_kvm (CONFIG_PTP_1588_CLOCK_KVM)"
        ) from error
    except OSError as error:
        raise GateFailed("clock", f"{machine.ptp} cannot be read: {error.strerror}") from error
    _check_near(f"{machine.ptp}'s", clock, before, after, PTP_SECONDS)


def _check_document(device: NsmDevice, machine: Machine) -> Document:
    """The NSM signs documents, and the system's time is theirs."""
    before = machine.now()
    encoded = device.attestation()
    after = machine.now()
    try:
        document = read_document(encoded)
    except Refused as error:
        raise GateFailed("nsm", f"the NSM's document cannot be read: {error}") from error
    _check_near("an attestation document's", document.timestamp.timestamp(), before, after, DOCUMENT_SECONDS)
    return document


def _check_near(whose: str, told: float, before: float, after: float, most: float) -> None:
    """What was *told* between *before* and *after* is the system's time, but for *most* seconds."""
    if before - most <= told <= after + most:
        return
    differs = before - told if told < before else after - told
    raise GateFailed(
        "clock", f"the system's time differs from {whose} by {differs:+.1f} s; at most {most:g} s are allowed"
    )
