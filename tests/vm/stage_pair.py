"""The stage ``pair``: host and enclave as two VMs side by side with vsock between them.

The guest plays the parent instance, CID 3, and runs the host daemon under systemd. The enclave, CID 16, is the real
image in an emulated enclave beside it.
"""

from __future__ import annotations

import errno
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tests.vm.checks import Check, Failed, expect, expect_in, run_checks, wait_until
from tests.vm.enclave_vm import CID, EnclaveVM
from tests.vm.machine import HOST, KEPT, Answer, Machine, descriptors, run

_CAPTURED: Final = Path("/run/capture")
_LOCAL: Final = 1
_ENCLAVE_PORT: Final = 5000
_RELAY_PORT: Final = 5001
_LOGS_PORT: Final = 5002
_HEARTBEAT_PORT: Final = 9000
_CHURN: Final = 2000
#: Seconds within which the gateway has to tell of a missing enclave: one, and what emulation costs.
_PROMPT: Final = 2.5
#: Seconds for the enclave's boot: 15 when nothing else is going on.
_BOOT: Final = 240


class Pair(Machine):
    """Both VMs.

    :param limits: that section of both daemons' configuration.
    """

    def __init__(self, limits: Mapping[str, object] | None = None) -> None:
        self.limits = limits or {}
        super().__init__(limits=self.limits)
        self.enclave = EnclaveVM()
        self.capture: subprocess.Popen[bytes] | None = None
        self.idle = (0, 0)
        self.heartbeats: list[tuple[int, bytes]] = []

    def answer_heartbeats(self) -> None:
        """Listen where nitro-cli waits for an enclave's boot, and answer as it does."""
        listening = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        listening.bind((socket.VMADDR_CID_ANY, _HEARTBEAT_PORT))
        listening.listen(4)
        threading.Thread(target=self._answer, args=(listening,), daemon=True).start()

    def _answer(self, listening: socket.socket) -> None:
        while True:
            connection, (cid, _) = listening.accept()
            with connection:
                word = connection.recv(1)
                connection.sendall(word)
                self.heartbeats.append((cid, word))


def modules_are_there(machine: Pair) -> str:
    """vsock over virtio, as in a parent instance, and a tap on it."""
    run("modprobe", "-a", "virtio_pci", "vmw_vsock_virtio_transport", "vsockmon")
    run("ip", "link", "add", "vsockmon0", "type", "vsockmon")
    run("ip", "link", "set", "vsockmon0", "up")
    return run("uname", "-r").strip()


def host_starts(machine: Pair) -> str:
    """The host daemon starts under its unit; there is no enclave yet, and health says so."""
    machine.start_upstream()
    machine.install_units()
    machine.configure()
    machine.answer_heartbeats()
    machine.enclave.build(machine.limits)
    machine.start(HOST)
    wait_until("the gateway", 30, machine.alive)
    answer, failing = machine.failing_layers()
    expect("status of /health", answer.status, 503)
    machine.enclave.start()
    return "and says: " + failing["enclave"]


def enclave_starts(machine: Pair) -> str:
    """The enclave sends the heartbeat that nitro-cli waits for, its application answers, and all layers are well."""
    seconds = wait_until("the application in the enclave", _BOOT, machine.enclave.ready)
    wait_until("health", 60, machine.healthy)
    expect("heartbeats of the boot", machine.heartbeats, [(CID, b"\xb7")])
    machine.idle = both_descriptors(machine)
    return f"{seconds:.0f} s later"


def demo_passes(machine: Pair) -> str:
    """The whole demo goes through, while everything that crosses vsock and the loopback is recorded."""
    ports = [str(port) for name, port in machine.upstream.items() if name not in ("ca_file", "pid")]
    _CAPTURED.mkdir()
    command = [sys.executable, "-m", "tests.vm.capture", str(_CAPTURED), str(_RELAY_PORT), *ports]
    machine.capture = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert machine.capture.stdout is not None
    expect("the capture", machine.capture.stdout.readline(), b"capturing\n")
    report = machine.demo(Path("/run/demo.json"))
    return f"{report['counts']['passed']} cases in {report['milliseconds'] / 1000:.0f} s"


def application_is_served(machine: Pair) -> str:
    """An application in the enclave reaches the upstream by CONNECT, with TLS of its own."""
    canary = _canary()
    answer = machine.enclave.ask("fetch", url=f"{machine.upstream_url}/get?canary={canary}", canary=canary)
    expect("the answer's status", answer["status"], 200)
    expect("whether the canary came back", answer["has_canary"], True)
    return f"{answer['size']} bytes"


def relay_saw_ciphertext(machine: Pair) -> str:
    """The canary of the demo is in nothing that the relay has carried, on either side; it is on the gateway's hop."""
    assert machine.capture is not None
    machine.capture.terminate()
    expect("the capture's status", machine.capture.wait(60), 0)
    counts = json.loads((_CAPTURED / "counts.json").read_text())
    expect("packets that the capture missed", counts["dropped"], 0)
    canary = _canary().encode()
    content = {kind: (_CAPTURED / kind).read_bytes() for kind in ("relay", "other", "tcp")}
    expect("whether the gateway's hop has the canary, or nothing was recorded", canary in content["other"], True)
    expect("whether the relay was asked", content["relay"].count(b"CONNECT localhost:") > 10, True)
    for kind in ("relay", "tcp"):
        expect(f"whether {kind} has the canary", canary in content[kind], False)
    sizes = ", ".join(f"{kind} {len(data) >> 20} MiB" for kind, data in content.items())
    return f"{sizes}; {sum(counts.values())} packets"


def _canary() -> str:
    canary: str = json.loads(Path("/run/demo.json").read_text())["canary"]
    return canary


def strangers_are_refused(machine: Pair) -> str:
    """The host's listeners for relay and logs serve the enclave only; the enclave's, the parent."""
    run("modprobe", "vsock_loopback")
    for port in (_RELAY_PORT, _LOGS_PORT):
        with _connect(_LOCAL, port) as stranger:
            expect(f"what port {port} answers a process of the host", _ask(stranger), b"")
    with _connect(CID, _ENCLAVE_PORT) as parent:
        _expect_status(_ask(parent), 404)
    return "nothing for them, an answer for the parent"


def unknown_cid(machine: Pair) -> str:
    """A CID that no VM has: connecting gives up after 2 s."""
    started = time.monotonic()
    expect("what the enclave is told", machine.enclave.ask("dial", cid=99, port=5000), {"failed": "ETIMEDOUT"})
    return f"ETIMEDOUT after {time.monotonic() - started:.1f} s"


def _connect(cid: int, port: int) -> socket.socket:
    connection = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    connection.settimeout(30)
    connection.connect((cid, port))
    return connection


def _failure_of_connecting(cid: int) -> int:
    try:
        _connect(cid, _ENCLAVE_PORT).close()
    except OSError as failed:
        return failed.errno or 0
    return 0


def _ask(connection: socket.socket) -> bytes:
    with suppress(BrokenPipeError, ConnectionResetError):  # it is closed already
        connection.sendall(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
    try:
        return connection.recv(1000)
    except ConnectionResetError:
        return b""


def nothing_leaks(machine: Pair) -> str:
    """2,000 connections in all ways, whole and broken off, leave no descriptor behind, in either daemon."""
    started = time.monotonic()
    errors: list[BaseException] = []

    def inside() -> None:
        try:
            machine.enclave.ask("churn", limit=150, url=machine.upstream_url, count=_CHURN // 4)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    for number in range(_CHURN * 3 // 4):
        _churn(machine, number)
    thread.join()
    if errors:
        raise Failed(str(errors[0]))
    seconds = time.monotonic() - started
    served = machine.fetch()
    expect("the status of a request after it", served.status, 200)

    def as_before() -> bool:
        slack = 8  # connections that are kept alive in the pools
        return all(now <= then + slack for now, then in zip(both_descriptors(machine), machine.idle, strict=True))

    wait_until(f"about {machine.idle} descriptors, as at first", 45, as_before, pause=1)
    now = both_descriptors(machine)
    return f"{_CHURN} in {seconds:.0f} s; host and enclave had {machine.idle} at first and have {now}"


def _churn(machine: Pair, number: int) -> None:
    # The gateway on TCP for two in three, the enclave's own vsock listener for the third.
    target = machine.upstream_url.removeprefix("https://").encode()
    if number % 3 == 2:
        connection = _connect(CID, _ENCLAVE_PORT)
    else:
        connection = socket.create_connection(("127.0.0.1", 8080), timeout=60)
    with connection:
        match number // 3 % 8:
            case 0 | 1 | 2:
                return
            case 3 | 4 | 5:
                connection.sendall(b"GET https://localhost/ HTTP/1.1\r\nHo")
            case 6:
                connection.sendall(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, target))
                _expect_status(connection.recv(1000), 200)
            case 7:
                connection.sendall(b"GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                _expect_status(connection.recv(1000), 404)


def _expect_status(head: bytes, status: int) -> None:
    expect("the status line", head[:12], b"HTTP/1.1 %d" % status)


def both_descriptors(machine: Pair) -> tuple[int, int]:
    """The open descriptors of the host daemon and of the enclave's."""
    return descriptors(machine.pid(HOST)), machine.enclave.ask("descriptors")["count"]


def host_restarts(machine: Pair) -> str:
    """The host daemon is restarted while the enclave runs, and requests are served again."""
    before = machine.enclave.ask("descriptors")["pid"]
    started = time.monotonic()
    run("systemctl", "restart", HOST)
    restarted = time.monotonic() - started
    seconds = wait_until("a request", 20, machine.served)
    expect("the enclave's proxy process", machine.enclave.ask("descriptors")["pid"], before)
    return f"restarted in {restarted:.1f} s, served {seconds:.1f} s later"


def host_is_killed(machine: Pair) -> str:
    """The host daemon dies within an answer: the application in the enclave sees it break off, and systemd helps."""
    pid = machine.pid(HOST)
    asked: dict[str, Any] = {}

    def ask() -> None:
        asked.update(machine.enclave.ask("stream", url=f"{machine.upstream_url}/drip?numbytes=100&duration=60&delay=0"))
        asked["at"] = time.monotonic()

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(3)  # its head and some of its body have come by then
    run("systemctl", "kill", "--signal", "KILL", HOST)
    killed = time.monotonic()
    thread.join(30)
    if not asked.get("broken"):
        raise Failed(f"the answer did not break off: {asked}")
    seconds = wait_until("a request", 30, machine.served)
    if machine.pid(HOST) == pid:
        raise Failed("it was not killed")
    return f"{asked['broken']} after {asked['at'] - killed:.1f} s; served again after {seconds:.1f} s"


def frozen_enclave(machine: Pair) -> str:
    """While the enclave's VM is frozen health says so, and no connection comes about; one that is there, and a request
    made meanwhile, go on when it does."""
    machine.served()
    answers: list[Answer] = []
    open_one = _connect(CID, _ENCLAVE_PORT)
    machine.enclave.freeze()
    try:
        waiting = threading.Thread(target=lambda: answers.append(machine.fetch("/uuid")))
        waiting.start()
        answer, failing = machine.failing_layers()
        expect("status of /health", answer.status, 503)
        expect_in("layers that fail", "enclave", " ".join(failing))
        if answer.seconds > _PROMPT:
            raise Failed(f"/health took {answer.seconds:.1f} s")
        expect("status of /health/live", machine.get("/health/live").status, 200)
        expect("how connecting fails", _failure_of_connecting(CID), errno.ETIMEDOUT)
    finally:
        machine.enclave.thaw()
    waiting.join(60)
    expect("the status of the request", [answer.status for answer in answers], [200])
    with open_one:
        _expect_status(_ask(open_one), 404)
    wait_until("health", 20, machine.healthy)
    return f"/health said after {answer.seconds:.1f} s: {failing['enclave']}"


def killed_enclave(machine: Pair) -> str:
    """When the enclave's VM is gone its connections end, health says so, and requests get 503 at once."""
    machine.served()
    open_one = _connect(CID, _ENCLAVE_PORT)
    machine.enclave.kill()
    with open_one, suppress(ConnectionResetError):
        expect("what a connection to it gives", open_one.recv(1000), b"")
    expect("how connecting fails", _failure_of_connecting(CID), errno.ECONNRESET)
    answer, failing = machine.failing_layers()
    expect("status of /health", answer.status, 503)
    expect_in("layers that fail", "enclave", " ".join(failing))
    request = machine.fetch()
    expect("the status of a request", request.status, 503)
    expect("the kind of problem", request.json()["error"], "enclave_unavailable")
    if max(answer.seconds, request.seconds) > _PROMPT:
        raise Failed(f"/health took {answer.seconds:.1f} s, the request {request.seconds:.1f} s")
    return f"/health after {answer.seconds:.1f} s, 503 after {request.seconds:.1f} s"


def enclave_returns(machine: Pair) -> str:
    """A new enclave is served as soon as it is there, by the same host daemon."""
    pid = machine.pid(HOST)
    machine.enclave.start()
    up = wait_until("the application in the enclave", _BOOT, machine.enclave.ready)
    seconds = wait_until("a request", 20, machine.served)
    wait_until("health", 20, machine.healthy)
    expect("the host daemon's process", machine.pid(HOST), pid)
    return f"up after {up:.0f} s; served {seconds:.1f} s later"


def journal_is_clean(machine: Pair) -> str:
    """The host daemon's journal has no traceback and no canary; it names what went wrong."""
    journal = machine.journal(HOST)
    expect("whether there is a traceback", "Traceback" in journal, False)
    expect("whether the canary is in it", _canary() in journal, False)
    return f"{len(journal.splitlines())} lines"


CHECKS: Final = (
    Check(modules_are_there, vital=True),
    Check(host_starts, limit=300, vital=True),
    Check(enclave_starts, limit=400, vital=True),
    Check(demo_passes, limit=400),
    Check(application_is_served, limit=120),
    Check(relay_saw_ciphertext, limit=180),
    Check(strangers_are_refused, limit=90),
    Check(unknown_cid, limit=90),
    Check(nothing_leaks, limit=400),
    Check(host_restarts, limit=120),
    Check(host_is_killed, limit=180),
    Check(frozen_enclave, limit=180),
    Check(killed_enclave, limit=60),
    Check(enclave_returns, limit=400),
    Check(journal_is_clean, limit=90),
)


def run_stage() -> None:
    """Run the stage."""
    machine = Pair()
    try:
        run_checks(machine, CHECKS)
    finally:
        if machine.capture is not None and machine.capture.poll() is None:
            machine.capture.send_signal(signal.SIGKILL)
        machine.enclave.keep()
        machine.keep(HOST, "upstream.service")
        (KEPT / "config.json").write_text(Path("/etc/nitroproxy/config.json").read_text())
