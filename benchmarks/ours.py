"""Starts nitroproxy's daemons as `scripts/dev.sh start` does, on their UNIX-socket transport (etc/local.json).

They are those of this checkout, or of another one that is compared with it (``--against``).
"""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.clients import Door
from benchmarks.origin import Origin
from benchmarks.processes import ROOT, Crew, Process, free_ports, listens
from benchmarks.wrk import Entry

#: So that idle connections stay open and none is refused: other cases measure those.
_LIMITS: Final = {
    "NITROPROXY_LIMITS_CONNECTIONS": "20000",
    "NITROPROXY_LIMITS_IDLE_TIMEOUT": "3600",
    "LOG_LEVEL": "WARN",
}


@dataclass(frozen=True, slots=True)
class Ours:
    """The addresses of one pair of daemons.

    :ivar directory: the directory of the transport's sockets.
    :ivar gateway: the gateway's TCP port.
    :ivar loopback: the TCP port of the enclave's loopback listener.
    :ivar root: the checkout that they run from.
    """

    directory: Path
    gateway: int
    loopback: int
    ca: Path
    root: Path

    @property
    def enclave_socket(self) -> Path:
        """The socket of the enclave, or of the server in its place."""
        return self.directory / "enclave" / "5000.sock"

    @property
    def relay_socket(self) -> str:
        """The socket of the relay."""
        return str(self.directory / "host" / "5001.sock")

    @property
    def environment(self) -> dict[str, str]:
        """The environment that configures both daemons."""
        return _LIMITS | {
            "NITROPROXY_TRANSPORT_DIRECTORY": str(self.directory),
            "NITROPROXY_TLS_CA_FILE": str(self.ca),
            "HOST_PROXY_PORT": str(self.gateway),
            "NITROPROXY_ENCLAVE_PROXY_PORT": str(self.loopback),
        }


def place(crew: Crew, ca: Path, name: str = "nitroproxy", root: Path = ROOT) -> Ours:
    """Choose the addresses of a pair of daemons of the checkout *root*."""
    gateway, loopback = free_ports(2)
    return Ours(crew.directory / name, gateway, loopback, ca, root)


def command(part: str, root: Path = ROOT) -> list[str]:
    """The command that starts one of the daemons.

    :param part: ``host`` or ``enclave``.
    :param root: the checkout; another one than this has an environment of its own (``scripts/dev.sh deps``).
    """
    commands = Path(sys.executable).parent if root == ROOT else root / ".venv/bin"
    # Without an access log, like all other contenders.
    configuration = ["--config", str(root / "etc/local.json"), "--set", "logging.access=false"]
    return [str(commands / "twistd"), "-n", "--pidfile=", "--reactor=nitroproxy", f"nitroproxy-{part}", *configuration]


def start_host(crew: Crew, ours: Ours, name: str = "nitroproxy-host", processes: int = 1) -> Process:
    """Start the host daemon, gateway and relay, with *processes* processes."""
    environment = ours.environment | {"NITROPROXY_HOST_PROXY_PROCESSES": str(processes)}
    process = crew.launch(name, command("host", ours.root), ("127.0.0.1", ours.gateway), environment, ours.root)
    process.wait_until(lambda: listens(ours.relay_socket))
    if processes > 1:
        process.wait_until(lambda: all_serve(ours.gateway, processes))
    return process


def start_enclave(
    crew: Crew,
    ours: Ours,
    name: str = "nitroproxy-enclave",
    environment: Mapping[str, str] | None = None,
    processes: int = 1,
) -> Process:
    """Start the enclave daemon with *processes* processes, optionally with additions to its environment."""
    variables = ours.environment | {"NITROPROXY_ENCLAVE_PROCESSES": str(processes)} | dict(environment or {})
    process = crew.launch(name, command("enclave", ours.root), ("127.0.0.1", ours.loopback), variables, ours.root)
    process.wait_until(lambda: listens(str(ours.enclave_socket)))
    if processes > 1:
        process.wait_until(lambda: all_serve(ours.loopback, processes))
    return process


def all_serve(port: int, count: int) -> bool:
    """Whether *count* workers of the daemon that listens at *port* are up, and the process that started them."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        lines = str(answer.read(), "ascii").splitlines()
    up = [line for line in lines if line.startswith("nitroproxy_worker_up{") and line.endswith(" 1.0")]
    return len(up) == count + 1


def start_gateway(crew: Crew, origin: Origin, root: Path = ROOT) -> Entry:
    """The gateway of the checkout *root*, with *origin*'s UNIX socket in place of the enclave's."""
    name = "nitroproxy" if root == ROOT else "against"
    ours = place(crew, origin.ca, name, root)
    ours.enclave_socket.parent.mkdir(mode=0o700, parents=True)
    ours.enclave_socket.symlink_to(origin.unix)
    return gateway_entry(ours, start_host(crew, ours, f"{name}-host"), origin.tls)


def start_chain(crew: Crew, origin: Origin, root: Path = ROOT) -> Entry:
    """Both daemons of the checkout *root*."""
    name = "nitroproxy" if root == ROOT else "against"
    ours = place(crew, origin.ca, name, root)
    host, enclave = start_host(crew, ours, f"{name}-host"), start_enclave(crew, ours, f"{name}-enclave")
    return chain_entry(ours, host, enclave, origin.tls)


def gateway_entry(ours: Ours, host: Process, destination: int) -> Entry:
    """The gateway alone: a server already listens on the enclave's socket in its place."""
    return Entry(ours.gateway, f"/https://localhost:{destination}", {"host": host.pid})


def chain_entry(ours: Ours, host: Process, enclave: Process, destination: int) -> Entry:
    """Gateway, enclave, relay."""
    return Entry(ours.gateway, f"/https://localhost:{destination}", {"host": host.pid, "enclave": enclave.pid})


def start_relay(crew: Crew, destination: str, name: str = "nitroproxy", root: Path = ROOT) -> tuple[Door, Process]:
    """Start a host daemon; returns the door of its relay to *destination* (``host:port``), and the daemon."""
    ours = place(crew, crew.directory / "ca.pem", name, root)
    return relay_door(ours, destination), start_host(crew, ours, f"{name}-host")


def relay_door(ours: Ours, destination: str) -> Door:
    """The relay, as the enclave uses it."""
    return Door(ours.relay_socket, destination)
