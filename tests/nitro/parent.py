"""This machine as the parent of an emulated enclave: the host daemon over UNIX sockets, an upstream with TLS, and the
application in the enclave, which does what it is asked.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from nitroproxy.image.measurements import Measurements
from tests.nitro.clients import DATABASE, Database, client_files
from tests.nitro.derive import derive_for_tests
from tests.nitro.enclave import EmulatedEnclave
from tests.nitro.qemu import find_qemu
from tests.ports import free_port
from tests.vm.application import PORT as APPLICATION_PORT
from tests.vm.checks import Failed, wait_until
from tests.vm.machine import SMALLER_DEMO, Answer, Gateway

ENCLAVE_PORT: Final = 5000
ATTESTED_PORT: Final = 5443
_ROOT: Final = Path(__file__).resolve().parent.parent.parent


class Parent(Gateway):
    """The machine of the stage.

    :param base: the image that `scripts/build.sh enclave` has made.
    :param directory: of the run, with a short path: UNIX sockets are in it.
    """

    def __init__(self, base: Path, directory: Path) -> None:
        self.directory = directory
        self.image = directory / "test.eif"
        self.enclave = EmulatedEnclave(
            find_qemu(), self.image, directory / "t", (ENCLAVE_PORT, APPLICATION_PORT, ATTESTED_PORT)
        )
        self._base = base
        self._children: list[subprocess.Popen[bytes]] = []
        self._host: subprocess.Popen[bytes] | None = None
        self.port, self.outside = free_port(), free_port()
        self.database_port = free_port()
        self.database = Database(directory / "database", self.database_port)

    # What runs.

    def start_upstream(self) -> None:
        """Start the demo's httpbin with TLS."""
        place = self.directory / "upstream"
        place.mkdir()
        self._spawn("upstream", sys.executable, "-m", "nitroproxy.demo.upstream", "--directory", str(place))
        wait_until("the upstream", 60, (place / "upstream.json").exists)

    @property
    def upstream_url(self) -> str:
        """The good listener's URL."""
        found = json.loads((self.directory / "upstream" / "upstream.json").read_text())
        return f"https://localhost:{found['https']}"

    def derive(self) -> Measurements:
        """Make the image: the base, the application, a configuration for the upstream."""
        ca = (self.directory / "upstream" / "ca.pem").read_bytes()
        files = {**client_files(), "etc/nitroproxy/database.pem": self.database.ca_pem}
        return derive_for_tests(self._base, self.image, ca, more=files)

    def start_database(self) -> None:
        """Start a PostgreSQL for the application to reach."""
        self.directory.chmod(0o711)  # It runs as a user of its own.
        self.database.make()
        self._spawn("database", *self.database.command)

    def start_host(self) -> None:
        """Start the host daemon."""
        settings = {
            "transport": {"kind": "unix", "directory": str(self.enclave.directory)},
            "host_proxy": {"port": self.port},
            "egress": {"allow": ["localhost:*", "*.test:*"], "allow_addresses": ["127.0.0.0/8", "::1/128"]},
            "ingress": {"tcp_port": self.outside, "interface": "127.0.0.1", "port": ATTESTED_PORT},
        }
        path = self.directory / "host.json"
        path.write_text(json.dumps(settings))
        twistd = Path(sys.executable).parent / "twistd"
        words = [str(twistd), "-n", "--pidfile=", "--reactor=nitroproxy", "nitroproxy-host", "--config", str(path)]
        hosts = self.directory / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {DATABASE} upstream.test\n")
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        in_its_own = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(hosts)]
        self._host = self._spawn("host", *in_its_own, *words)
        wait_until("the gateway", 30, self.alive)

    @property
    def host_pid(self) -> int:
        """The host daemon's process."""
        assert self._host is not None
        return self._host.pid

    @property
    def host_log(self) -> str:
        """What the host daemon has logged."""
        return (self.directory / "host.log").read_text(errors="replace")

    def close(self) -> None:
        """End everything."""
        self.enclave.close()
        for child in reversed(self._children):
            if child.poll() is None:
                child.kill()
                child.wait(20)

    def _spawn(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                command,
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children.append(child)
        return child

    # The gateway.

    def get(self, path: str, *, timeout: float = 60) -> Answer:
        """GET *path* from the gateway.

        :raises OSError: there is no answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        started = time.monotonic()
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            return Answer(response.status, response.read(), time.monotonic() - started)
        finally:
            connection.close()

    def fetch(self, path: str = "/get", *, timeout: float = 60) -> Answer:
        """GET the upstream's *path* through gateway, enclave and relay."""
        return self.get(f"/{self.upstream_url}{path}", timeout=timeout)

    def demo(self, report: Path) -> Mapping[str, Any]:
        """Run the demo through it; its report.

        :raises Failed: a case failed.
        """
        upstream = str(self.directory / "upstream" / "upstream.json")
        proxy = f"http://127.0.0.1:{self.port}"
        words = [sys.executable, "-c", SMALLER_DEMO, "demo", "--proxy", proxy, "--upstream", upstream]
        with (self.directory / "demo.txt").open("wb") as output:
            subprocess.run(
                [*words, "--json", str(report)], cwd=_ROOT, stdout=output, stderr=output, check=False, timeout=280
            )
        found: Mapping[str, Any] = json.loads(report.read_text())
        bad = [f"{case['name']}: {case['detail']}" for case in found["cases"] if case["result"] != "passed"]
        if bad:
            raise Failed(f"cases that did not pass: {bad}")
        return found

    # The enclave's ports.

    def connect(self, port: int, folder: str = "enclave") -> socket.socket:
        """A connection to a vsock port of the enclave: its parent's, or from the folder ``stranger`` another CID's."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        connection.connect(str(self.enclave.directory / folder / f"{port}.sock"))
        return connection

    def ready(self) -> bool:
        """Whether the application listens, or the enclave has ended.

        :raises Failed: it has ended.
        """
        if self.enclave.exit_status is not None:
            raise Failed(f"the enclave has ended: {self.console()[-600:]}")
        with suppress(Failed, OSError, ValueError):
            return "uid" in self.ask("identity")
        return False

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Have the application do something; what it says.

        :raises Failed: it could not.
        """
        with self.connect(APPLICATION_PORT) as connection, connection.makefile("rb") as lines:
            connection.settimeout(280 if do == "demo" else 60)
            connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            line = lines.readline()
        if not line:
            raise Failed(f"{do} in the enclave: the connection ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(f"{do} in the enclave: {answer['error']}")
        return answer

    def attested(self, policy: Path, text: str) -> dict[str, Any]:
        """POST *text* to the application by attested TLS, from outside; what came of it: `tests.nitro.attested_client`.

        :raises Failed: the client could not say.
        """
        root = self.enclave.directory / "root.pem"
        url = f"https://127.0.0.1:{self.outside}/"
        words = [sys.executable, "-m", "tests.nitro.attested_client", url, str(policy), str(root), text]
        ended = subprocess.run(words, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=120)
        try:
            found: dict[str, Any] = json.loads(ended.stdout)
        except ValueError as error:
            raise Failed(f"the client ended with {ended.returncode}: {ended.stderr[-600:]}") from error
        return found

    def console(self) -> str:
        """What the enclave has printed since its last start."""
        path = self.enclave.console
        return path.read_text(errors="replace") if path.exists() else ""
