"""Starts nitroproxy's daemons as `scripts/dev.sh start` does, on their UNIX-socket transport (etc/local.json)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.clients import Door
from benchmarks.processes import ROOT, Crew, Process, free_ports
from benchmarks.wrk import Entry

#: So that idle connections stay, and none is refused: these are measured apart.
_LIMITS: Final = {
    "NITROPROXY_LIMITS_CONNECTIONS": "20000",
    "NITROPROXY_LIMITS_IDLE_TIMEOUT": "3600",
    "LOG_LEVEL": "WARN",
}


@dataclass(frozen=True, slots=True)
class Ours:
    """Where one pair of daemons listens.

    :ivar directory: of the transport's sockets.
    :ivar gateway: the gateway's TCP port.
    :ivar loopback: the TCP port of the enclave's loopback listener.
    """

    directory: Path
    gateway: int
    loopback: int
    ca: Path

    @property
    def enclave_socket(self) -> Path:
        """Where the enclave listens, or what stands in for it."""
        return self.directory / "enclave" / "5000.sock"

    @property
    def relay_socket(self) -> str:
        """Where the relay listens."""
        return str(self.directory / "host" / "5001.sock")

    @property
    def environment(self) -> dict[str, str]:
        """What both daemons are configured with."""
        return _LIMITS | {
            "NITROPROXY_TRANSPORT_DIRECTORY": str(self.directory),
            "NITROPROXY_TLS_CA_FILE": str(self.ca),
            "HOST_PROXY_PORT": str(self.gateway),
            "NITROPROXY_ENCLAVE_PROXY_PORT": str(self.loopback),
        }


def place(crew: Crew, ca: Path, name: str = "nitroproxy") -> Ours:
    """Choose where a pair of daemons will listen."""
    gateway, loopback = free_ports(2)
    return Ours(crew.directory / name, gateway, loopback, ca)


def command(part: str) -> list[str]:
    """How to start one of the daemons.

    :param part: ``host`` or ``enclave``.
    """
    twistd = str(Path(sys.executable).parent / "twistd")
    # Without an access log, as all the others are measured.
    configuration = ["--config", str(ROOT / "etc/local.json"), "--set", "logging.access=false"]
    return [twistd, "-n", "--pidfile=", "--reactor=nitroproxy", f"nitroproxy-{part}", *configuration]


def start_host(crew: Crew, ours: Ours, name: str = "nitroproxy-host", processes: int = 1) -> Process:
    """Start the host daemon: gateway and relay, on so many processes."""
    environment = ours.environment | {"NITROPROXY_HOST_PROXY_PROCESSES": str(processes)}
    process = crew.launch(name, command("host"), ("127.0.0.1", ours.gateway), environment)
    process.wait_until(lambda: Path(ours.relay_socket).exists())
    return process


def start_enclave(
    crew: Crew, ours: Ours, name: str = "nitroproxy-enclave", environment: Mapping[str, str] | None = None
) -> Process:
    """Start the enclave daemon, with more in its environment if that is wanted."""
    variables = ours.environment | dict(environment or {})
    process = crew.launch(name, command("enclave"), ("127.0.0.1", ours.loopback), variables)
    process.wait_until(ours.enclave_socket.exists)
    return process


def gateway_entry(ours: Ours, host: Process, destination: int) -> Entry:
    """The gateway alone: what stands in for the enclave listens on its socket already."""
    return Entry(ours.gateway, f"/https://localhost:{destination}", {"host": host.pid})


def chain_entry(ours: Ours, host: Process, enclave: Process, destination: int) -> Entry:
    """Gateway, enclave, relay."""
    return Entry(ours.gateway, f"/https://localhost:{destination}", {"host": host.pid, "enclave": enclave.pid})


def relay_door(ours: Ours, destination: str) -> Door:
    """The relay, as the enclave uses it."""
    return Door(ours.relay_socket, destination)
