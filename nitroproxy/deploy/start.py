"""The units: started in order, waited for until requests would be served, and examined when they are not."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING, Final

from nitroproxy.deploy.changes import Changes
from nitroproxy.deploy.failure import Refused, Status
from nitroproxy.deploy.machine import CommandFailed, Machine

if TYPE_CHECKING:
    from nitroproxy.config.ends import HostProxy

SOCKET: Final = "nitroproxy-host.socket"
HOST: Final = "nitroproxy-host.service"
ENCLAVE: Final = "nitroproxy-eif.service"
#: In the order in which they start.
UNITS: Final = (SOCKET, HOST, ENCLAVE)
#: The one that runs only where a role is configured (credentials.role).
CREDENTIALS: Final = "nitroproxy-credentials.service"
#: What the gateway's own socket listens at, as the unit is distributed.
_USUAL: Final = ("127.0.0.1", 8080)
LISTEN: Final = f"/etc/systemd/system/{SOCKET}.d/listen.conf"
#: What makes run-enclave take an image that was built for the emulator.
ANY_KERNEL: Final = f"/etc/systemd/system/{ENCLAVE}.d/any-kernel.conf"
ANY_KERNEL_TEXT: Final = "# Written by deploy.sh --any-kernel.\n[Service]\nEnvironment=EIF_OPTIONS=--any-kernel\n"
_JOURNAL_LINES: Final = 20
#: Seconds between two looks at the health page, and for one of them.
_INTERVAL: Final = 0.5
_TIMEOUT: Final = 5.0
_MOST_BYTES: Final = 65536
#: Layers that the enclave answers for, or that its unit has the reason for.
_ENCLAVE_LAYERS: Final = ("vsock", "enclave", "enclave_workers")


def listen_file(gateway: HostProxy) -> str:
    """What makes the socket unit listen where the configuration wants the gateway; empty where it does already."""
    if (gateway.interface, gateway.port) == _USUAL:
        return ""
    host = f"[{gateway.interface}]" if ":" in gateway.interface else gateway.interface
    comment = "# Written by deploy.sh from host_proxy.interface and host_proxy.port.\n"
    return f"{comment}[Socket]\nListenStream=\nListenStream={host}:{gateway.port}\n"


def active(machine: Machine, unit: str) -> bool:
    """Whether systemd has started *unit*."""
    return machine.succeeds("systemctl", "is-active", "--quiet", unit)


class Units:
    """The units as they were found, and what is done with them.

    :param changes: gets what brings them back as they were, in two steps, because it is the first and the last thing
        that an undoing does: make this before any file is changed, and call `run` after all are.
    """

    def __init__(self, machine: Machine, changes: Changes) -> None:
        self._machine = machine
        self._changes = changes
        known = (*UNITS, CREDENTIALS)
        self._were_active = {unit: active(machine, unit) for unit in known}
        self._were_enabled = {unit: machine.succeeds("systemctl", "is-enabled", "--quiet", unit) for unit in known}
        self._touched: list[str] = []
        changes.did(self._bring_back)

    def running(self, *, credentials: bool) -> bool:
        """Whether all of them ran that should.

        :param credentials: the credentials daemon should; otherwise it should not.
        """
        return all(self._were_active[unit] for unit in UNITS) and self._were_active[CREDENTIALS] == credentials

    @property
    def gateway_runs(self) -> bool:
        """Whether the gateway's port was ours."""
        return self._were_active[SOCKET] or self._were_active[HOST]

    def run(self, *, host: bool, socket: bool, enclave: bool) -> float | None:
        """Start what does not run, and restart what has changed; returns when an enclave that ran was ended, in
        seconds of the monotonic clock, None without one.

        :param socket: the address of the gateway is another.
        :raises Refused: when a unit does not start, with the end of its journal.
        """
        self._changes.did(self._stop_new)
        self._control("enable", "--quiet", *UNITS)
        self._control("daemon-reload")
        if not self._were_active[SOCKET] or socket:
            # systemd cannot take a port that the daemon has.
            if self._were_active[HOST]:
                self._touch(HOST, "stop")
            self._touch(SOCKET, "restart" if self._were_active[SOCKET] else "start")
            self._touch(HOST, "start")
        elif not self._were_active[HOST] or host:
            self._touch(HOST, "restart" if self._were_active[HOST] else "start")
        if not self._were_active[ENCLAVE]:
            self._touch(ENCLAVE, "start")
        elif enclave:
            ended = time.monotonic()
            self._touch(ENCLAVE, "restart")
            return ended
        return None

    def run_credentials(self, *, wanted: bool, host: bool) -> None:
        """Start the credentials daemon, restart it when the host's files have changed, or end it; after `run`.

        :raises Refused: when it does not start, with the end of its journal.
        """
        was_active = self._were_active[CREDENTIALS]
        if wanted:
            self._control("enable", "--quiet", CREDENTIALS)
        if wanted and (host or not was_active):
            self._touch(CREDENTIALS, "restart" if was_active else "start")
        if not wanted and was_active:
            self._touch(CREDENTIALS, "stop")
            self._control("disable", "--quiet", CREDENTIALS)

    def _touch(self, unit: str, verb: str) -> None:
        self._touched.append(unit)
        self._control(verb, unit, unit=unit)

    def _control(self, *words: str, unit: str | None = None) -> None:
        try:
            self._machine.run("systemctl", *words)
        except CommandFailed as error:
            details = journal(self._machine, unit) if unit is not None else ""
            raise Refused(Status.START, str(error), details) from error

    def _stop_new(self) -> None:
        """Before the files are put back: what did not run stops by the units that started it."""
        for unit in (*reversed(UNITS), CREDENTIALS):
            if unit in self._touched and not self._were_active[unit]:
                self._machine.succeeds("systemctl", "stop", unit)
            if not self._were_enabled[unit]:
                self._machine.succeeds("systemctl", "disable", "--quiet", unit)

    def _bring_back(self) -> None:
        """After the files are put back: what ran runs again, as it did."""
        self._machine.run("systemctl", "daemon-reload")
        if SOCKET in self._touched and self._were_active[SOCKET]:
            self._machine.succeeds("systemctl", "stop", HOST)
            self._machine.run("systemctl", "restart", SOCKET)
        for unit in (HOST, CREDENTIALS, ENCLAVE):
            if unit in self._touched and self._were_enabled[unit]:
                self._machine.run("systemctl", "enable", "--quiet", unit)
            if unit in self._touched and self._were_active[unit]:
                self._machine.run("systemctl", "restart", unit)


def wait_until_ready(machine: Machine, gateway: HostProxy, seconds: float) -> None:
    """Wait until a request would reach the relay.

    :raises Refused: when it takes longer, with the layer that fails and the end of its journal.
    """
    started = time.monotonic()
    while _ask(gateway, "/health/ready")[0] != 200:
        if time.monotonic() - started > seconds:
            layer, reason = failing_layer(gateway)
            unit = ENCLAVE if layer in _ENCLAVE_LAYERS else HOST
            raise Refused(
                Status.START, f"not ready after {seconds:g} seconds: {layer} fails: {reason}", journal(machine, unit)
            )
        time.sleep(_INTERVAL)


def failing_layer(gateway: HostProxy) -> tuple[str, str]:
    """The first layer that fails, and why."""
    status, body = _ask(gateway, "/health")
    if not status:
        return "host", "the gateway does not answer"
    try:
        for layer, checks in json.loads(body)["checks"].items():
            if checks[0]["status"] == "fail":
                return layer, checks[0].get("output", "no reason given")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "host", f"the health page cannot be read (status {status})"
    return "host", f"the health page has status {status}"


def journal(machine: Machine, unit: str) -> str:
    """The end of a unit's journal."""
    try:
        said = machine.run(
            "journalctl", "--unit", unit, "--lines", str(_JOURNAL_LINES), "--no-pager", "--output", "cat"
        )
    except CommandFailed as error:
        said = str(error)
    return f"the end of the journal of {unit}:\n{said.rstrip()}"


def _ask(gateway: HostProxy, path: str) -> tuple[int, bytes]:
    """The status and body of a page of the gateway; 0 without an answer."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(gateway.interface, gateway.interface)  # noqa: S104
    connection = http.client.HTTPConnection(host, gateway.port, timeout=_TIMEOUT)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
