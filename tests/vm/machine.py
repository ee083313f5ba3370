"""The guest as the checks see it: the units under systemd, an httpbin with TLS, and the gateway."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from tests.vm.checks import Failed, expect, wait_until

#: Where the stage's files are, and where what is worth keeping goes.
PAYLOAD: Final = Path("/run/payload")
KEPT: Final = Path("/run/out")

BIN: Final = Path("/opt/nitroproxy/bin")
CONFIGURATION: Final = Path("/etc/nitroproxy/config.json")
CA_FILE: Final = Path("/etc/nitroproxy/ca.pem")
HOST: Final = "nitroproxy-host.service"
ENCLAVE: Final = "nitroproxy-enclave.service"
UNITS: Final = Path("/etc/systemd/system")
_UPSTREAM: Final = Path("/run/upstream")

#: The demo, with 4 MiB for a large body instead of 16: an emulated machine moves less than 1 MiB of TLS a second.
SMALLER_DEMO: Final = """
import sys
from nitroproxy.commands.main import main
from nitroproxy.demo import cases
cases.LARGE_BODY_BYTES = 4 << 20
sys.exit(main())
"""


@dataclass(frozen=True)
class Answer:
    """The gateway's answer; *seconds* is how long it took."""

    status: int
    body: bytes
    seconds: float

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def run(*command: str, limit: float = 60, status: int | None = 0) -> str:
    """Run a command and return what it printed.

    :param status: what it has to exit with; None for any.
    :raises Failed: it exits with another.
    """
    done = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit
    )
    if status is not None and done.returncode != status:
        raise Failed(f"{' '.join(command)}: status {done.returncode} instead of {status}: {done.stdout[-1500:]}")
    return done.stdout


class Gateway:
    """A gateway as a client of it sees it, that `get` and `fetch` ask.

    :cvar served_within: seconds that a request may take to come through.
    """

    served_within: ClassVar[float] = 30

    def get(self, path: str, *, timeout: float) -> Answer:
        """GET the gateway's own *path*."""
        raise NotImplementedError

    def fetch(self, *, timeout: float) -> Answer:
        """GET a page of the upstream's through it."""
        raise NotImplementedError

    def served(self) -> bool:
        """Whether a request comes through."""
        with suppress(OSError):
            return self.fetch(timeout=self.served_within).status == 200
        return False

    def alive(self) -> bool:
        """Whether the gateway answers."""
        with suppress(OSError):
            return self.get("/health/live", timeout=5).status == 200
        return False

    def healthy(self) -> bool:
        """Whether the gateway says that every layer is well."""
        with suppress(OSError):
            return self.get("/health", timeout=10).status == 200
        return False


class Machine(Gateway):
    """A guest with systemd.

    :param sections: of the configuration, where the stage needs other than the checks' usual ones.
    """

    served_within = 10

    def __init__(self, **sections: Mapping[str, object]) -> None:
        self._sections = sections

    # What is installed.

    def configure(self, **sections: Mapping[str, object]) -> None:
        """Write the configuration of both daemons, with *sections* in place of the stage's own."""
        settings = {
            "egress": {"allow": ["localhost:*"], "allow_addresses": ["127.0.0.0/8", "::1/128"]},
            "tls": {"ca_file": str(CA_FILE)},
            **self._sections,
            **sections,
        }
        CONFIGURATION.parent.mkdir(exist_ok=True)
        CONFIGURATION.write_text(json.dumps(settings, indent=2))

    @contextmanager
    def configured(self, **sections: Mapping[str, object]) -> Iterator[None]:
        """Another configuration, for a while; what was there comes back."""
        before = CONFIGURATION.read_text()
        self.configure(**sections)
        try:
            yield
        finally:
            CONFIGURATION.write_text(before)

    def install_units(self) -> None:
        """Install the units as docs/operations.md says."""
        run(str(BIN / "nitroproxy"), "install-units")
        run("systemd-sysusers")
        run("systemctl", "daemon-reload")

    def start_upstream(self) -> str:
        """Start the demo's httpbin with TLS and have its CA trusted; its URL."""
        _UPSTREAM.mkdir()
        module = "nitroproxy.demo.upstream"
        run("systemd-run", "--unit=upstream", str(BIN / "python"), "-m", module, "--directory", str(_UPSTREAM))
        wait_until("upstream.json", 40, (_UPSTREAM / "upstream.json").exists)
        CA_FILE.parent.mkdir(exist_ok=True)
        shutil.copy(_UPSTREAM / "ca.pem", CA_FILE)
        CA_FILE.chmod(0o644)
        return self.upstream_url

    @property
    def upstream(self) -> dict[str, Any]:
        """Where the upstream listens."""
        found: dict[str, Any] = json.loads((_UPSTREAM / "upstream.json").read_text())
        return found

    @property
    def upstream_url(self) -> str:
        """The good listener's URL."""
        return f"https://localhost:{self.upstream['https']}"

    # systemd.

    def property(self, unit: str, name: str) -> str:
        """One of a unit's properties."""
        return run("systemctl", "show", unit, "--property", name, "--value").strip()

    def pid(self, unit: str) -> int:
        """A unit's main process."""
        return int(self.property(unit, "MainPID"))

    def journal(self, unit: str) -> str:
        """What a unit has logged."""
        run("journalctl", "--sync")
        return run("journalctl", "--unit", unit, "--output", "cat", "--no-pager")

    def start(self, *units: str) -> None:
        """Start *units*.

        :raises Failed: with the end of its journal, when one does not start.
        """
        run("systemctl", "start", *units, limit=180, status=None)
        for unit in units:
            state = self.property(unit, "ActiveState")
            if state != "active":
                raise Failed(f"{unit} is {state} when it has been started: {self.journal(unit)[-800:]}")

    def keep(self, *units: str) -> None:
        """Keep the journals of *units* with the stage's results."""
        for unit in units:
            (KEPT / f"{unit}.log").write_text(run("journalctl", "--unit", unit, "--no-pager", "-o", "short-monotonic"))

    # The gateway.

    def get(self, path: str, *, headers: Mapping[str, str] | None = None, timeout: float = 60) -> Answer:
        """GET *path* from the gateway over a connection of its own.

        :raises OSError: there is no answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=timeout)
        started = time.monotonic()
        try:
            connection.request("GET", path, headers={"Connection": "close", **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.read(), time.monotonic() - started)
        finally:
            connection.close()

    def fetch(self, path: str = "/get", *, headers: Mapping[str, str] | None = None, timeout: float = 60) -> Answer:
        """GET the upstream's *path* through the gateway."""
        return self.get(f"/{self.upstream_url}{path}", headers=headers, timeout=timeout)

    def failing_layers(self) -> tuple[Answer, dict[str, str]]:
        """The gateway's health, and the layers that fail with what is said of them."""
        answer = self.get("/health", timeout=10)
        checks = answer.json()["checks"]
        return answer, {
            layer: entry.get("output", "") for layer, [entry] in checks.items() if entry["status"] == "fail"
        }

    def demo(self, report: Path) -> Any:
        """Run the whole demo; its report.

        :raises Failed: a case failed.
        """
        command = [str(BIN / "python"), "-c", SMALLER_DEMO, "demo", "--upstream", str(_UPSTREAM / "upstream.json")]
        output = run(*command, "--json", str(report), limit=290, status=None)
        (KEPT / "demo.txt").write_text(output)
        shutil.copy(report, KEPT)
        found = json.loads(report.read_text())
        bad = [f"{case['name']}: {case['detail']}" for case in found["cases"] if case["result"] != "passed"]
        expect("cases that did not pass", bad, [])
        return found


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
