"""The stage ``systemd``: the shipped units on one kernel, where vsock's loopback joins the two daemons.

What a unit may yet have to offer (notification, watchdog, reload, sockets) is checked when it does, and skipped until
then.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Final

from tests.vm import probe
from tests.vm.checks import Check, Failed, Skipped, expect, expect_in, run_checks, wait_until
from tests.vm.machine import BIN, ENCLAVE, HOST, KEPT, PAYLOAD, UNITS, Answer, Machine, run

_SOCKET: Final = "nitroproxy-host.socket"
_LOCAL: Final = 1
_RELAY_PORT: Final = 5001
_MOST_EXPOSURE: Final = 1.3
#: Run by systemd with properties of a sandbox: connects to the relay; binds a port that needs a capability.
_CONNECT: Final = f"import socket; socket.socket(socket.AF_VSOCK).connect(({_LOCAL}, {_RELAY_PORT}))"
_BIND_LOW: Final = "import socket; socket.socket(socket.AF_VSOCK).bind((socket.VMADDR_CID_ANY, 999))"


class OneKernel(Machine):
    """Both daemons on this kernel."""

    def __init__(self) -> None:
        super().__init__(
            transport={"parent_cid": _LOCAL},
            enclave={"cid": _LOCAL, "proxy_port": 8081},
            limits={"drain_timeout": 10.0},
        )
        self.canary = ""
        #: The daemons' processes as they were started, and when.
        self.started: dict[str, int] = {}
        self.started_at = 0.0


def install(machine: OneKernel) -> str:
    """The units are installed as they are shipped, and systemd finds nothing wrong with them."""
    run("modprobe", "vsock_loopback")
    machine.start_upstream()
    machine.install_units()
    machine.configure()
    run("systemd-analyze", "verify", "--man=no", HOST, ENCLAVE)
    return ", ".join(sorted(unit.name for unit in UNITS.glob("nitroproxy-*")))


def exposure(machine: OneKernel) -> str:
    """systemd's own measure of what the daemons could still do is low."""
    seen = {}
    for unit in (HOST, ENCLAVE):
        found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", run("systemd-analyze", "security", unit))
        if found is None or float(found[1]) > _MOST_EXPOSURE:
            raise Failed(f"{unit}: {found and found[1]}, more than {_MOST_EXPOSURE}")
        seen[unit] = found[1]
    return ", ".join(f"{unit} {level}" for unit, level in seen.items())


def start(machine: OneKernel) -> str:
    """Both daemons start, and the journal says where they listen."""
    started = time.monotonic()
    machine.start(HOST, ENCLAVE)
    wait_until("health", 80, machine.healthy)
    seconds = time.monotonic() - started
    expect_in("the host's journal", f"listening on vsock port {_RELAY_PORT}", machine.journal(HOST))
    expect_in("the enclave's journal", "listening on vsock port 5000", machine.journal(ENCLAVE))
    machine.started = {unit: machine.pid(unit) for unit in (HOST, ENCLAVE)}
    machine.started_at = time.monotonic()
    return f"healthy after {seconds:.1f} s"


def status_text(machine: OneKernel) -> str:
    """`systemctl status` says in a few words how each daemon is."""
    _needs_notification(machine)
    text = {unit: machine.property(unit, "StatusText") for unit in (HOST, ENCLAVE)}
    expect("units without a status text", [unit for unit, words in text.items() if not words], [])
    return "; ".join(text.values())


def hardening(machine: OneKernel) -> str:
    """The daemons run as nobody in particular, without capabilities, behind a filter of system calls."""
    for unit in (HOST, ENCLAVE):
        status = Path(f"/proc/{machine.pid(unit)}/status").read_text()
        for wanted in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"):
            expect_in(f"{unit}'s status", wanted, status)
        if re.search(r"^Uid:\t0\t", status, re.MULTILINE):
            raise Failed(f"{unit} runs as root")
    return "not root, no capability, a seccomp filter"


def sandbox(machine: OneKernel) -> str:
    """In the units' sandbox there are vsock and TCP; raw packets, the disk, home directories and writing are not."""
    shutil.copy(PAYLOAD / "tests" / "vm" / "probe.py", BIN / "probe.py")
    found: dict[str, str] = {}
    for unit in (HOST, ENCLAVE):
        text = (UNITS / unit).read_text()
        text = re.sub(r"^(ExecStartPre|ExecReload|Restart|WatchdogSec|Sockets)=.*\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"^Type=.*$", "Type=oneshot", text, flags=re.MULTILINE)
        text = re.sub(r"^ExecStart=.*$", f"ExecStart={BIN}/python {BIN}/probe.py", text, flags=re.MULTILINE)
        (UNITS / f"probe-{unit}").write_text(text)
        run("systemctl", "daemon-reload")
        run("systemctl", "start", f"probe-{unit}")
        [line] = [line for line in machine.journal(f"probe-{unit}").splitlines() if line.startswith(probe.MARK)]
        found = json.loads(line.removeprefix(probe.MARK))
        allowed = {name for name, result in found.items() if result == "allowed"}
        expect(f"what {unit}'s sandbox allows", allowed, {"vsock", "tcp"})
    return ", ".join(f"{name}: {result}" for name, result in found.items())


def what_isolates(machine: OneKernel) -> str:
    """Neither a network namespace nor an address filter keeps vsock out; RestrictAddressFamilies does. In a user
    namespace of its own a process has no capability for low vsock ports."""
    bind = ("User=nobody", "AmbientCapabilities=CAP_NET_BIND_SERVICE")
    _with_properties(_CONNECT, "PrivateNetwork=yes", "IPAddressDeny=any")
    refused = _with_properties(_CONNECT, "RestrictAddressFamilies=AF_INET AF_UNIX", status=1)
    expect_in("what is said of the family", "Address family not supported", refused)
    _with_properties(_BIND_LOW, *bind)
    denied = _with_properties(_BIND_LOW, *bind, "PrivateUsers=yes", status=1)
    expect_in("what is said of the port", "Permission denied", denied)
    return "PrivateNetwork, IPAddressDeny do not; RestrictAddressFamilies does; PrivateUsers takes low ports away"


def _with_properties(code: str, *properties: str, status: int = 0) -> str:
    options = [f"--property={each}" for each in properties]
    return run("systemd-run", "--wait", "--pipe", "--quiet", *options, "/usr/bin/python3", "-ISc", code, status=status)


def vsock_socket_unit(machine: OneKernel) -> str:
    """systemd can listen on vsock, too, and start a service for who connects."""
    (UNITS / "greeter.socket").write_text("[Socket]\nListenStream=vsock::5200\n")
    greet = "import socket; socket.socket(fileno=3).accept()[0].sendall(b'hello')"
    (UNITS / "greeter.service").write_text(f'[Service]\nExecStart=/usr/bin/python3 -ISc "{greet}"\n')
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "greeter.socket")
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as connection:
        connection.settimeout(20)
        connection.connect((_LOCAL, 5200))
        said = connection.recv(100)
    run("systemctl", "stop", "greeter.socket")
    if said != b"hello":
        raise Failed(f"the service said {said!r}: {machine.journal('greeter.service')}")
    return "ListenStream=vsock::5200"


def demo_passes(machine: OneKernel) -> str:
    """The whole demo goes through the hardened daemons, over vsock."""
    report = machine.demo(Path("/run/demo.json"))
    machine.canary = report["canary"]
    return f"{report['counts']['passed']} cases in {report['milliseconds'] / 1000:.0f} s"


def well_is_left_alone(machine: OneKernel) -> str:
    """A daemon that turns pings the watchdog: after more than its limit it is the process that was started."""
    limit = _watchdog_seconds(machine)
    wait_until("more than the watchdog's limit", limit + 5, lambda: machine.started_at + limit + 2 < time.monotonic())
    for unit, pid in machine.started.items():
        said = [line for line in machine.journal(unit).splitlines() if "atchdog" in line]
        expect(f"what systemd says of {unit}'s watchdog", said, [])
        expect(f"{unit}'s restarts", machine.property(unit, "NRestarts"), "0")
        expect(f"{unit}'s process", machine.pid(unit), pid)
    return f"{time.monotonic() - machine.started_at:.0f} s; the limit is {limit:g} s"


def _watchdog_seconds(machine: OneKernel) -> float:
    return float(machine.property(HOST, "WatchdogUSec").removesuffix("s"))


def reload(machine: OneKernel) -> str:
    """A reload takes over a changed configuration, without a restart; one that cannot be used is refused."""
    pid = machine.pid(ENCLAVE)
    try:
        with machine.configured(egress={"allow": ["elsewhere:*"]}):
            run("systemctl", "reload", ENCLAVE)
            wait_until("a refusal", 10, lambda: machine.fetch().status == 403)
            with machine.configured(limits={"connections": "many"}):
                run("systemctl", "reload", ENCLAVE)
                said = "not reloaded, the old configuration stays: limits.connections"
                wait_until("an error in the journal", 10, lambda: said in machine.journal(ENCLAVE))
                expect("the status of a request", machine.fetch().status, 403)
    finally:
        run("systemctl", "reload", ENCLAVE)
    wait_until("an answer", 10, machine.served)
    expect("the daemon's process", machine.pid(ENCLAVE), pid)
    return "the policy changed, stayed when the file was wrong, and changed back"


def watchdog(machine: OneKernel) -> str:
    """A daemon that does nothing any more is ended by systemd and started again."""
    _needs_notification(machine)
    limit = _watchdog_seconds(machine)
    pid = machine.pid(HOST)
    run("systemctl", "kill", "--signal", "STOP", "--kill-who", "main", HOST)
    seconds = wait_until("another process", limit + 30, lambda: machine.pid(HOST) not in (0, pid))
    wait_until("a request", 30, machine.served)
    expect_in("systemd's journal", "Watchdog timeout", machine.journal(HOST))
    return f"a new process {seconds:.0f} s after it was stopped; the limit is {limit:g} s"


def socket_activation(machine: OneKernel) -> str:
    """systemd listens in the daemon's place: a restart refuses nobody."""
    run("systemctl", "stop", HOST)
    run("systemctl", "start", _SOCKET)
    expect("the status of the first request", machine.fetch().status, 200)
    expect_in("the host's journal", "systemd's socket 127.0.0.1:8080", machine.journal(HOST))
    answers: list[Answer] = []
    restarting = threading.Thread(target=lambda: run("systemctl", "restart", HOST))
    restarting.start()
    while restarting.is_alive():
        answers.append(machine.fetch())
        time.sleep(0.2)
    restarting.join()
    expect("the statuses of requests during a restart", {answer.status for answer in answers}, {200})
    slowest = max(answer.seconds for answer in answers)
    return f"{len(answers)} requests during a restart, the slowest in {slowest:.1f} s"


def drain(machine: OneKernel) -> str:
    """A daemon that is stopped finishes what is under way; it ends with success, and refuses new connections."""
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(machine.fetch("/drip?numbytes=8&duration=6&delay=0")))
    asking.start()
    time.sleep(2)
    started = time.monotonic()
    run("systemctl", "stop", HOST)
    seconds = time.monotonic() - started
    asking.join(20)
    expect("the answer under way", [(answer.status, len(answer.body)) for answer in answers], [(200, 8)])
    expect("the unit's result", machine.property(HOST, "Result"), "success")
    expect("whether the gateway answers", machine.alive(), False)
    if seconds < 1:
        raise Failed(f"it stopped after {seconds:.1f} s: nothing was under way")
    return f"stopped after {seconds:.1f} s, when the answer was complete"


def port_taken(machine: OneKernel) -> str:
    """A daemon whose vsock port is taken says so in one line and ends with 1; when it is free, systemd starts it."""
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as other:
        other.bind((socket.VMADDR_CID_ANY, _RELAY_PORT))
        other.listen()
        run("systemctl", "start", HOST, status=None)
        said = "nitroproxy-relay: cannot listen on vsock port 5001: "
        wait_until("its word", 30, lambda: said in machine.journal(HOST))
        [line, *_] = [line for line in machine.journal(HOST).splitlines() if said in line]
        expect_in("the line", "the port is taken", line)
        ended = "Main process exited, code=exited, status=1/FAILURE"
        wait_until("its end", 20, lambda: ended in machine.journal(HOST).partition(said)[2])
    seconds = wait_until("health", 80, machine.healthy)
    return f"{line}; healthy {seconds:.0f} s after the port was free"


def bad_configuration(machine: OneKernel) -> str:
    """A configuration that cannot be used does not get as far as the daemon; the journal says what is wrong with it."""
    run("systemctl", "stop", ENCLAVE)
    with machine.configured(limits={"connections": "many"}):
        run("systemctl", "start", ENCLAVE, status=1)
        expect_in("the journal", "limits.connections: expected an integer", machine.journal(ENCLAVE))
        run("systemctl", "stop", ENCLAVE)
    machine.start(ENCLAVE)
    wait_until("health", 80, machine.healthy)
    return "refused, and started when it was mended"


def killed(machine: OneKernel) -> str:
    """A daemon that is killed is started again, and requests are served."""
    pid = machine.pid(ENCLAVE)
    run("systemctl", "kill", "--signal", "KILL", ENCLAVE)
    seconds = wait_until("another process", 20, lambda: machine.pid(ENCLAVE) not in (0, pid))
    served = wait_until("a request", 30, machine.served)
    return f"a new process after {seconds:.1f} s, requests served {served:.1f} s later"


def journal(machine: OneKernel) -> str:
    """The journals have a request's lines under its id, the host's also the enclave's; no traceback, no canary of the
    demo and no query string."""
    request_id, lines = "asked-by-the-systemd-stage", 0
    answer = machine.fetch("/bytes/100?numbytes=1", headers={"X-Request-Id": request_id})
    expect("the status of a request", answer.status, 200)
    for unit, said in (
        (HOST, "nitroproxy-host GET"),
        (HOST, f"[enclave {_LOCAL}] nitroproxy-enclave GET"),
        (ENCLAVE, "nitroproxy-enclave GET"),
    ):
        _await_line(machine, unit, said, f"id={request_id}")
    for unit in (HOST, ENCLAVE):
        text = machine.journal(unit)
        for unwanted in ("Traceback", machine.canary or "no demo has run", "numbytes="):
            expect(f"whether {unwanted!r} is in {unit}'s journal", unwanted in text, False)
        lines += len(text.splitlines())
    return f"{lines} lines"


def _await_line(machine: OneKernel, unit: str, *parts: str) -> None:
    def there() -> bool:
        return any(all(part in line for part in parts) for line in machine.journal(unit).splitlines())

    wait_until(f"a line in {unit}'s journal with {parts}", 10, there)


def _needs_notification(machine: OneKernel) -> None:
    kind = machine.property(HOST, "Type")
    if not kind.startswith("notify"):
        raise Skipped(f"the unit's type is {kind}")


CHECKS: Final = (
    Check(install, limit=90, vital=True),
    Check(exposure),
    Check(start, limit=120, vital=True),
    Check(status_text),
    Check(hardening),
    Check(sandbox, limit=60),
    Check(what_isolates, limit=60),
    Check(vsock_socket_unit),
    Check(demo_passes, limit=120),
    Check(well_is_left_alone),
    Check(reload, limit=60),
    Check(watchdog, limit=120),
    Check(drain, limit=60),
    Check(port_taken, limit=150),
    Check(bad_configuration, limit=120),
    Check(killed, limit=60),
    Check(socket_activation, limit=120),
    Check(journal),
)


def run_stage() -> None:
    """Run the stage."""
    machine = OneKernel()
    try:
        run_checks(machine, CHECKS)
    finally:
        machine.keep(HOST, ENCLAVE, "upstream.service")
        (KEPT / "status.txt").write_text(run("systemctl", "status", HOST, ENCLAVE, "--no-pager", status=None))
