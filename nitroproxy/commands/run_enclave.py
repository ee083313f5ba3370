"""`nitroproxy run-enclave`: runs the enclave image on the parent instance, as nitroproxy-eif.service's main process.

It starts the image with nitro-cli, notifies systemd when the enclave is RUNNING, ends with status 1 when the enclave
ends, and terminates the enclave when it is stopped itself.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nitroproxy.commands.arguments import Subparsers, add_configuration_options, complain, load_configuration
from nitroproxy.config.schema import Enclave
from nitroproxy.daemon.systemd import Notifier
from nitroproxy.image.documents import is_for_emulator
from nitroproxy.image.errors import ImageError
from nitroproxy.image.memory import needed
from nitroproxy.image.reader import read_image

#: Seconds that nitro-cli may take to start an image, and for anything else.
_START_TIMEOUT: Final = 120.0
_TIMEOUT: Final = 20.0
#: Seconds between two looks at the enclave.
_INTERVAL: Final = 2.0
#: How many looks in a row have to fail: nitro-cli asks the process of every enclave, and fails if one is slow.
_FAILED_LOOKS: Final = 5
#: Characters of nitro-cli's error output that are passed on, at most.
_WORDS: Final = 4000


class NitroError(Exception):
    """nitro-cli failed; the message says which command and why."""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``run-enclave`` to the command line."""
    parser = subparsers.add_parser(
        "run-enclave",
        help="start the enclave image and stay while it runs",
        description="Start the enclave image with nitro-cli as the configuration says (enclave.cid, enclave.cpu_count, "
        "enclave.memory_mb), stay while it runs, and terminate it on SIGTERM or SIGINT.",
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
    enclave = load_configuration(arguments).settings.enclave
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    notifier = Notifier(os.environ)
    try:
        check_image(Path(arguments.eif), enclave.memory_mb, any_kernel=arguments.any_kernel)
        cli = NitroCLI(arguments.nitro_cli)
        supervise(cli, enclave, arguments.eif, debug=arguments.debug_mode, notifier=notifier, stop=stop)
    except NitroError as error:
        return complain(str(error))
    return 0


@dataclass(frozen=True)
class NitroCLI:
    """Amazon's nitro-cli.

    :ivar program: the command.
    """

    program: str = "nitro-cli"

    def run(self, enclave: Enclave, eif: str, *, debug: bool) -> str:
        """Start *eif* as *enclave* says; returns the enclave's id.

        :raises NitroError: when it cannot be started.
        """
        command = ["run-enclave", "--eif-path", eif, "--enclave-cid", str(enclave.cid)]
        command += ["--cpu-count", str(enclave.cpu_count), "--memory", str(enclave.memory_mb)]
        answer = self._ask([*command, *(["--debug-mode"] if debug else [])], _START_TIMEOUT)
        identity = answer.get("EnclaveID") if isinstance(answer, dict) else None
        if not isinstance(identity, str):
            raise NitroError(f"{self.program} run-enclave did not say which enclave it started")
        return identity

    def state(self, identity: str) -> str | None:
        """The state of the enclave (``RUNNING``, ``TERMINATING``, ``EMPTY``); None when there is no such enclave.

        :raises NitroError: when nitro-cli fails or answers with something else.
        """
        answer = self._ask(["describe-enclaves"], _TIMEOUT)
        if not isinstance(answer, list):
            raise NitroError(f"{self.program} describe-enclaves did not answer with a list")
        for enclave in answer:
            if isinstance(enclave, dict) and enclave.get("EnclaveID") == identity:
                return str(enclave.get("State"))
        return None

    def terminate(self, identity: str) -> None:
        """End the enclave.

        :raises NitroError: when it could not be ended.
        """
        self._ask(["terminate-enclave", "--enclave-id", identity], _TIMEOUT)

    def _ask(self, arguments: Sequence[str], timeout: float) -> Any:
        what = f"{self.program} {arguments[0]}"
        try:
            done = subprocess.run(  # noqa: S603  # No shell; the program is the operator's choice.
                [self.program, *arguments], check=False, capture_output=True, text=True, timeout=timeout
            )
        except FileNotFoundError:
            raise NitroError(f"there is no {self.program} here: install aws-nitro-enclaves-cli") from None
        except OSError as error:
            raise NitroError(f"{self.program} cannot be run: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise NitroError(f"{what} did not end within {timeout:g} seconds") from None
        if done.returncode:
            # The cause comes first, what followed from it last.
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            raise NitroError(f"{what} failed: {' '.join(lines)[:_WORDS] or f'status {done.returncode}'}")
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise NitroError(f"{what} did not answer in JSON") from None


def check_image(eif: Path, memory_mib: int, *, any_kernel: bool) -> None:
    """Refuse what cannot run, before nitro-cli is asked.

    :param memory_mib: of the enclave, as configured.
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
    least = needed(image.size, 0, 0, 0).load
    if memory_mib < least:
        raise NitroError(
            f"enclave.memory_mb: {memory_mib} is less than 4 times the image's {image.size} bytes, which nitro-cli "
            f"refuses (E26); set at least {least}"
        )


def supervise(
    cli: NitroCLI, enclave: Enclave, eif: str, *, debug: bool, notifier: Notifier, stop: threading.Event
) -> None:
    """Start the image and stay until *stop* is set, which ends the enclave.

    :raises NitroError: when the image cannot be started, the enclave ends by itself, or nitro-cli fails to report its
        state several times in a row.
    """
    identity = cli.run(enclave, eif, debug=debug)
    gone = False
    try:
        ready, failed = False, 0
        while not stop.is_set():
            try:
                state = cli.state(identity)
            except NitroError:
                failed += 1
                if failed == _FAILED_LOOKS:
                    raise
                stop.wait(_INTERVAL)
                continue
            failed, gone = 0, state is None
            if state != "RUNNING" and (ready or gone):
                raise NitroError(f"the enclave {identity} has ended; its state is {state or 'unknown'}")
            if state == "RUNNING" and not ready:
                ready = True
                notifier.ready(f"{identity} is running, CID {enclave.cid}")
            stop.wait(_INTERVAL)
    finally:
        if not gone:
            notifier.stopping("terminating the enclave", 2 * _TIMEOUT)
            cli.terminate(identity)
