"""`nitroproxy run-enclave`: runs the enclave image on the parent instance, as nitroproxy-eif.service's main process.

It starts the image with nitro-cli, notifies systemd when the enclave is RUNNING, ends with status 1 when the enclave
ends, and terminates the enclave when it is stopped itself. While the enclave runs, `enclave.json` says which one it is
(`nitroproxy.daemon.enclave_record`).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nitroproxy.commands.arguments import Subparsers, add_configuration_options, complain, load_configuration
from nitroproxy.commands.nitro_cli import TIMEOUT, NitroCLI, NitroError, Started
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.enclave_record import NAME, EnclaveRecord, read_record, remove_record
from nitroproxy.daemon.systemd import Notifier
from nitroproxy.image.documents import is_for_emulator, root_bytes
from nitroproxy.image.errors import ImageError
from nitroproxy.image.memory import needed
from nitroproxy.image.reader import Image, read_image

#: Held in ``transport.directory`` while an enclave starts: nitro-cli waits for its first message on vsock port 9000,
#: which only one can have. Scripts may take it with flock(1).
LOCK: Final = "run-enclave.lock"
_LOCK_TIMEOUT: Final = 120.0
#: Seconds between two attempts to take the lock, and between two looks at the enclave.
_LOCK_INTERVAL: Final = 0.2
_INTERVAL: Final = 2.0
#: How many looks in a row have to fail: nitro-cli asks the process of every enclave, and fails if one is slow.
_FAILED_LOOKS: Final = 5


def add_parser(subparsers: Subparsers) -> None:
    """Add ``run-enclave`` to the command line."""
    parser = subparsers.add_parser(
        "run-enclave",
        help="start the enclave image and stay while it runs",
        description="Start the enclave image with nitro-cli as the configuration says (enclave.cid, enclave.cpu_count, "
        f"enclave.memory_mb), stay while it runs, and terminate it on SIGTERM or SIGINT. While it runs, {NAME} in "
        "transport.directory says which enclave it is; with enclave.cid 0 the host daemon learns the CID from it.",
        epilog="Exit status: 0 after SIGTERM or SIGINT, 1 if the enclave cannot be started or ends by itself.",
    )
    parser.add_argument("--eif", metavar="FILE", required=True, help="the enclave image")
    parser.add_argument(
        "--nitro-cli", metavar="PROGRAM", default="nitro-cli", help="the nitro-cli program (default: %(default)s)"
    )
    parser.add_argument(
        "--debug-mode", action="store_true", help="start it in debug mode: with a console, and without attestation"
    )
    parser.add_argument("--any-kernel", action="store_true", help="start it even if it was built for the emulator")
    add_configuration_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the enclave until it ends or a signal stops it; the exit status."""
    settings = load_configuration(arguments).settings
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    try:
        image = check_image(Path(arguments.eif), settings, any_kernel=arguments.any_kernel)
        plan = Plan(arguments.eif, image.measurements.pcr0, settings, debug=arguments.debug_mode)
        supervise(NitroCLI(arguments.nitro_cli), plan, Notifier(os.environ), stop)
    except NitroError as error:
        complain(str(error))
        for line in error.logs:
            complain(line)
        return 1
    return 0


class Stopped(Exception):
    """Told to stop before an enclave was started."""


@dataclass(frozen=True)
class Plan:
    """What to start.

    :ivar eif: the path of the image.
    :ivar pcr0: its measurement, in hexadecimal.
    :ivar debug: start it in debug mode.
    """

    eif: str
    pcr0: str
    settings: Settings
    debug: bool = False

    @property
    def directory(self) -> Path:
        """Where the lock and the record are."""
        return Path(self.settings.transport.directory)


def check_image(eif: Path, settings: Settings, *, any_kernel: bool) -> Image:
    """Refuse what cannot run, before nitro-cli is asked; returns the image.

    What boots, but has too little memory for all the connections that it may have, is only warned of.

    :param any_kernel: start an image of the emulator too.
    :raises NitroError: the image is damaged, for the emulator, or too large for the memory.
    """
    try:
        image = read_image(eif)
    except ImageError as error:
        raise NitroError(str(error)) from error
    if is_for_emulator(image) and not any_kernel:
        raise NitroError(
            f"{eif}: it was built for the emulator, and its kernel does not run on Nitro; build it with Nitro's boot "
            "files (scripts/build.sh enclave --blobs DIR), or start it with --any-kernel"
        )
    given, connections = settings.enclave.memory_mb, settings.limits.connections
    unpacked = root_bytes(image)
    memory = needed(image.size, unpacked or 0, connections, 0)
    if given < memory.load:
        raise NitroError(
            f"enclave.memory_mb: {given} is less than 4 times the image's {image.size} bytes, which nitro-cli refuses "
            f"(E26); set at least {memory.load if unpacked is None else memory.least}"
        )
    if unpacked is not None and given < memory.boot:
        raise NitroError(
            f"enclave.memory_mb: {given} is too little to unpack the image's root of {unpacked} bytes: the kernel ends "
            f"with a panic; set at least {memory.least}"
        )
    if unpacked is not None and given < memory.run:
        sys.stderr.write(
            f"nitroproxy: warning: enclave.memory_mb: {given} is not enough for limits.connections ({connections}) and "
            f"leaves nothing for an application: {memory.run} MiB or more\n"
        )
    return image


@contextlib.contextmanager
def start_lock(directory: Path, stop: threading.Event) -> Iterator[None]:
    """Hold the lock that keeps two enclaves from starting at the same time.

    :raises NitroError: when it cannot be had within `_LOCK_TIMEOUT` seconds.
    :raises Stopped: when *stop* is set before.
    """
    path = directory / LOCK
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise NitroError(f"{path} cannot be made: {error.strerror}") from error
    with file:
        until = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() >= until:
                    raise NitroError(f"{path}: another enclave has been starting for too long") from None
                if stop.wait(_LOCK_INTERVAL):
                    raise Stopped from None
            else:
                break
        yield


def start(cli: NitroCLI, plan: Plan, stop: threading.Event) -> Started:
    """Start the image, and record which enclave it is.

    :raises NitroError: when that is impossible; then no enclave of ours runs.
    :raises Stopped: when *stop* is set before.
    """
    enclave = plan.settings.enclave
    with start_lock(plan.directory, stop):
        _forget_last(cli, plan.directory)
        started = cli.run(
            plan.eif, cid=enclave.cid, cpu_count=enclave.cpu_count, memory_mib=enclave.memory_mb, debug=plan.debug
        )
    try:
        EnclaveRecord(started.cid, started.enclave_id, plan.eif, plan.pcr0, time.time()).write(plan.directory)
    except OSError as error:
        cli.terminate(started.enclave_id)
        raise NitroError(f"{plan.directory / NAME} cannot be written: {error.strerror}") from error
    return started


def _forget_last(cli: NitroCLI, directory: Path) -> None:
    """Remove the record of the enclave before, unless that one runs: the host daemon serves it."""
    try:
        last = read_record(directory)
    except (OSError, ValueError):
        last = None
    if last is not None and cli.state(last.enclave_id) is not None:
        raise NitroError(
            f"{directory / NAME}: the enclave {last.enclave_id} (CID {last.cid}) still runs; end it with `nitro-cli "
            f"terminate-enclave --enclave-id {last.enclave_id}`, or give this one another transport.directory"
        )
    try:
        remove_record(directory)
    except OSError as error:
        raise NitroError(f"{directory / NAME} cannot be removed: {error.strerror}") from error


def supervise(cli: NitroCLI, plan: Plan, notifier: Notifier, stop: threading.Event) -> None:
    """Start the image and stay until *stop* is set, which ends the enclave.

    :raises NitroError: when the image cannot be started, the enclave ends by itself, or nitro-cli fails to report its
        state several times in a row.
    """
    try:
        started = start(cli, plan, stop)
    except Stopped:
        return
    gone = False
    try:
        ready, failed = False, 0
        while not stop.is_set():
            try:
                state = cli.state(started.enclave_id)
            except NitroError:
                failed += 1
                if failed == _FAILED_LOOKS:
                    raise
                stop.wait(_INTERVAL)
                continue
            failed, gone = 0, state is None
            if state != "RUNNING" and (ready or gone):
                raise NitroError(f"the enclave {started.enclave_id} has ended; its state is {state or 'unknown'}")
            if state == "RUNNING" and not ready:
                ready = True
                notifier.ready(f"{started.enclave_id} is running, CID {started.cid}")
            stop.wait(_INTERVAL)
    finally:
        # First: from now on its CID is nobody's. What cannot be removed here the unit removes (ExecStopPost=).
        with contextlib.suppress(OSError):
            remove_record(plan.directory)
        if not gone:
            notifier.stopping("terminating the enclave", 2 * TIMEOUT)
            cli.terminate(started.enclave_id)
