"""Amazon's nitro-cli as a program: starts, observes and ends enclaves. Knows the standard library only.

On failure nitro-cli exits with the number of its error code, prints ``[ E26 ] …`` on standard error, and names a log
file whose content is the useful part.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

#: Seconds that nitro-cli may take to start an image, and for anything else.
_START_TIMEOUT: Final = 120.0
TIMEOUT: Final = 20.0
#: Characters of nitro-cli's error output that are passed on, at most, and bytes of each error log.
_WORDS: Final = 4000
_LOG_BYTES: Final = 8192
#: How nitro-cli names an error log. It writes one for each error that it prints: the first has the cause.
_LOG: Final = re.compile(r'error log found at "?(/[^"\n]+)"?')
_MOST_LOGS: Final = 2


class NitroError(Exception):
    """nitro-cli failed, or cannot be expected to succeed; the message says which command and why.

    :param logs: the lines of the error logs that nitro-cli named.
    """

    def __init__(self, message: str, logs: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.logs = logs


@dataclass(frozen=True)
class Started:
    """An enclave that nitro-cli has started."""

    enclave_id: str
    cid: int


@dataclass(frozen=True)
class NitroCLI:
    """Amazon's nitro-cli.

    :ivar program: the command.
    :ivar environ: its environment; None: this process's.
    """

    program: str = "nitro-cli"
    environ: Mapping[str, str] | None = None

    def run(self, eif: str, *, cid: int, cpu_count: int, memory_mib: int, debug: bool) -> Started:
        """Start the image *eif*.

        :param cid: 0: the hypervisor chooses one.
        :raises NitroError: when it cannot be started.
        """
        command = ["run-enclave", "--eif-path", eif, "--enclave-cid", str(cid)]
        command += ["--cpu-count", str(cpu_count), "--memory", str(memory_mib)]
        answer = self._ask([*command, *(["--debug-mode"] if debug else [])], _START_TIMEOUT)
        found = answer if isinstance(answer, dict) else {}
        enclave_id, given = found.get("EnclaveID"), found.get("EnclaveCID")
        if not isinstance(enclave_id, str) or type(given) is not int:
            raise NitroError(f"{self.program} run-enclave did not say which enclave it started")
        return Started(enclave_id, given)

    def enclaves(self) -> list[dict[str, Any]]:
        """The enclaves of this instance, as nitro-cli describes them.

        :raises NitroError: when nitro-cli fails or answers with something else.
        """
        answer = self._ask(["describe-enclaves"], TIMEOUT)
        if not isinstance(answer, list):
            raise NitroError(f"{self.program} describe-enclaves did not answer with a list")
        return [enclave for enclave in answer if isinstance(enclave, dict)]

    def state(self, enclave_id: str) -> str | None:
        """The state of the enclave (``RUNNING``, ``TERMINATING``, ``EMPTY``); None when there is no such enclave.

        :raises NitroError: as `enclaves`.
        """
        for enclave in self.enclaves():
            if enclave.get("EnclaveID") == enclave_id:
                return str(enclave.get("State"))
        return None

    def terminate(self, enclave_id: str) -> None:
        """End the enclave.

        :raises NitroError: when it could not be ended.
        """
        self._ask(["terminate-enclave", "--enclave-id", enclave_id], TIMEOUT)

    def _ask(self, arguments: Sequence[str], timeout: float) -> Any:
        what = f"{self.program} {arguments[0]}"
        try:
            done = subprocess.run(  # noqa: S603  # No shell; the program is the operator's choice.
                [self.program, *arguments],
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                env=self.environ,
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
            said = f": {' '.join(lines)[:_WORDS]}" if lines else ""
            raise NitroError(f"{what} failed with status {done.returncode}{said}", error_logs(done.stderr))
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise NitroError(f"{what} did not answer in JSON") from None


def error_logs(said: str) -> list[str]:
    """The lines of the error logs that nitro-cli names in *said*, each log under its name."""
    lines: list[str] = []
    for name in list(dict.fromkeys(_LOG.findall(said)))[:_MOST_LOGS]:
        try:
            with Path(name).open("rb") as file:
                content = file.read(_LOG_BYTES).decode("utf-8", "replace")
        except OSError as error:
            lines.append(f"{name}: {error.strerror}")
        else:
            lines += [f"{name}:", *(f"  {line}" for line in content.splitlines())]
    return lines
