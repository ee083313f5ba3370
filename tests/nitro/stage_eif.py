"""The stage ``eif``: the real image boots as an enclave, proxies, attests, and fails in every way that can be played.

usage: python -m tests.nitro.stage_eif EIF DIRECTORY
"""

from __future__ import annotations

import hashlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from nitroproxy.attestation import Attestation, Refused, load_policy, verify
from nitroproxy.image.documents import policy_document, write_document
from nitroproxy.image.reader import read_image
from tests.nitro.clients import DATABASE, command_of
from tests.nitro.nsm import ROLE
from tests.nitro.parent import ENCLAVE_PORT, Parent
from tests.vm.checks import END, Check, Failed, Result, expect, expect_in, report, run_checks, wait_until
from tests.vm.machine import Answer

#: Seconds for a boot: 10 on a quiet machine.
_BOOT: Final = 240
_PROMPT: Final = 2.5
#: Bytes of a body, the most that httpbin streams.
_BODY: Final = 100 * 1024


def host_starts(machine: Parent) -> str:
    """The host daemon starts before the enclave, and its health says what is missing."""
    machine.start_upstream()
    machine.start_database()
    machine.derive()
    machine.enclave.start_switch()
    machine.start_host()
    answer = machine.get("/health", timeout=20)
    expect("status of /health", answer.status, 503)
    return str([layer for layer, [entry] in answer.json()["checks"].items() if entry["status"] == "fail"])


def enclave_boots(machine: Parent) -> str:
    """The image boots, its entry point starts daemon and application, and all layers are well."""
    machine.enclave.start()
    seconds = wait_until("the application in the enclave", _BOOT, machine.ready, pause=0.5)
    wait_until("health", 60, machine.healthy)
    return f"after {seconds:.0f} s"


def privileges(machine: Parent) -> str:
    """The application is not root, and may not change the image."""
    expect("the application", machine.ask("identity"), {"uid": 65533, "gid": 65533, "groups": [], "writes": False})
    return "uid 65533"


def demo_passes(machine: Parent) -> str:
    """The whole demo goes through the real image."""
    found = machine.demo(machine.directory / "demo.json")
    return f"{found['counts']['passed']} cases in {found['milliseconds'] / 1000:.0f} s"


def application_is_served(machine: Parent) -> str:
    """The application reaches the upstream by CONNECT with TLS of its own, through the proxy that it was told of."""
    answer = machine.ask("fetch", url=f"{machine.upstream_url}/get?x=canary-of-the-application", canary="canary-of-the")
    expect("the answer", (answer["status"], answer["has_canary"]), (200, True))
    return f"{answer['size']} bytes"


def without_proxy_settings(machine: Parent) -> str:
    """psql and curl reach their servers without any proxy variable, over netfilter without nf_tables as on Nitro; a
    denied name does not exist, and one of the proxy's health checks watches it all."""
    server = f"host={DATABASE} port={machine.database_port} user=app dbname=postgres"
    trust = "sslmode=verify-full sslrootcert=/etc/nitroproxy/database.pem"
    query = "select 'tls ' || version from pg_stat_ssl where pid = pg_backend_pid()"
    psql = machine.ask("run", words=command_of("psql", f"{server} {trust}", "-Atc", query))
    expect("psql", (psql["status"], psql["output"].strip()), (0, "tls TLSv1.3"))
    port = urlsplit(machine.upstream_url).port
    to = f"localhost:{port}:upstream.test:{port}"
    curl = ["-sS", "--cacert", "/etc/nitroproxy/ca.pem", "--connect-to", to, f"{machine.upstream_url}/get"]
    found = machine.ask("run", words=command_of("curl", *curl))
    expect("curl", found["status"], 0)
    expect_in("curl's output", '"origin"', found["output"])
    denied = machine.ask("run", words=command_of("curl", "-sS", "https://denied.example/"))
    expect_in("curl's words", "Could not resolve host", denied["output"])
    wait_until("health", 30, machine.healthy)
    checks = machine.get("/health").json()["checks"]
    expect("the check transparent", checks["transparent"][0]["status"], "pass")
    return f"{psql['output'].strip()}; {checks['transparent'][0]['output']}"


def application_runs_demo(machine: Parent) -> str:
    """The demo also passes in the enclave, as an application; what needs the upstream's file is skipped."""
    found = machine.ask("demo", target=machine.upstream_url)
    expect("its exit status, and cases that failed", (found["status"], found["counts"]["failed"]), (0, 0))
    return f"{found['counts']['passed']} passed"


def log_arrives(machine: Parent) -> str:
    """The host's log has the lines of the entry point, of the daemon and of the application."""
    for words in ("the daemon is ready", "nitroproxy-enclave: listening", "application: ready"):
        wait_until(f"{words!r} in the host's log", 30, lambda words=words: f"{words}" in machine.host_log)  # type: ignore[misc]
    expect("whether the host's log names the enclave", "[enclave 16]" in machine.host_log, True)
    return f"{machine.host_log.count('[enclave 16]')} lines of the enclave"


def document_is_verified(machine: Parent) -> str:
    """The enclave's document passes for the policy that `nitroproxy image` writes for its image, and for no other."""
    found = _verify(machine, b"a nonce")
    measured = read_image(machine.image).measurements
    for number, wanted in ((0, measured.pcr0), (1, measured.pcr1), (2, measured.pcr2)):
        expect(f"PCR{number}", found.pcrs[number].hex(), wanted)
    return f"{found.module_id}, PCR0 {measured.pcr0[:16]}…"


def _verify(machine: Parent, nonce: bytes) -> Attestation:
    """Verify a new document as a client would, with the module's root in place of AWS's.

    :raises Refused: it does not pass.
    """
    path = machine.directory / "policy.json"
    write_document(path, policy_document("test", read_image(machine.image).measurements, {"role": ROLE}))
    root = x509.load_pem_x509_certificate(machine.enclave.root_pem).fingerprint(hashes.SHA256())
    document = _attest(machine, nonce.decode())
    return verify(document, load_policy(str(path)), now=datetime.now(UTC), nonce=nonce, roots=[root])


def _attest(machine: Parent, nonce: str) -> bytes:
    answer = machine.ask("attest", nonce=nonce)
    if "document" not in answer:
        raise Failed(f"no document: {answer}")
    return bytes.fromhex(answer["document"])


def attested_from_outside(machine: Parent) -> str:
    """A client on this machine talks to the application by attested TLS: by the policy that `nitroproxy image` writes,
    with what the application has registered. With another policy nothing of the request leaves."""
    expect("the status of what is registered", machine.ask("register", data="mine"), {"status": 204})
    path = machine.directory / "policy.json"
    measured = read_image(machine.image).measurements
    write_document(path, policy_document("test", measured, {"role": ROLE}))
    found = machine.attested(path, "a text from outside")
    expect("what came of it", found.get("body", found), "the application heard a text from outside")
    expect("what is registered", bytes.fromhex(found["registered"]), b"mine")
    pcrs = [found["pcrs"][str(number)] for number in (0, 1, 2)]
    expect("PCR0, 1 and 2", pcrs, [measured.pcr0, measured.pcr1, measured.pcr2])
    other = machine.directory / "other.json"
    write_document(other, policy_document("other", replace(measured, pcr2="ab" * 48), {"role": ROLE}))
    expect("what becomes of another image", machine.attested(other, "never sent"), {"refused": "policy"})
    expect("whether the host's log has the text", "a text from outside" in machine.host_log, False)
    [check] = machine.get("/health", timeout=20).json()["checks"]["attestation"]
    expect_in("health", "EMULATED", check["output"])
    return f"{found['seconds']:.1f} s with its challenge"


def hostile_modules(machine: Parent) -> str:
    """A client refuses what hostile modules sign, by the right rule; errors and slowness reach the application."""
    for variant, rule in (
        ("signature", "signature"),
        ("pcr", "policy"),
        ("debug", "debug"),
        ("stale", "age"),
        ("future", "age"),
    ):
        machine.enclave.module(variant)
        try:
            _verify(machine, b"n")
        except Refused as refused:
            expect(f"the rule that {variant!r} breaks", refused.rule, rule)
        else:
            raise Failed(f"the document of the module {variant!r} passed")
    machine.enclave.module("invalid")
    expect_in("the answer", "InvalidOperation", str(machine.ask("attest", nonce="n")))
    machine.enclave.module("slow")
    started = time.monotonic()
    _verify(machine, b"n")
    seconds = time.monotonic() - started
    machine.enclave.module("good")
    expect("whether the proxy serves beside it", machine.served(), True)
    return f"the slow one took {seconds:.1f} s"


def clocks(machine: Parent) -> str:
    """The enclave's time is about the machine's: it has no clock but the one that its hypervisor gave it."""
    found = machine.ask("clock")
    skew = found["time"] - time.time()
    if abs(skew) > 30:
        raise Failed(f"its clock differs by {skew:.0f} s")
    return f"{skew:+.1f} s, {found['devices']}"


def strangers_are_refused(machine: Parent) -> str:
    """The enclave's listener serves its parent's CID only."""
    with machine.connect(ENCLAVE_PORT, "stranger") as stranger:
        expect("what another CID gets", _ask(stranger), b"")
    with machine.connect(ENCLAVE_PORT) as parent:
        expect("what the parent gets", _ask(parent)[:12], b"HTTP/1.1 404")
    return "nothing for another CID"


def _ask(connection: socket.socket) -> bytes:
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
    try:
        return connection.recv(1000)
    except ConnectionResetError:
        return b""


def starved(machine: Parent) -> str:
    """While the enclave gets no credit a body stops; with credit again it is complete and right."""
    answers: list[Answer] = []
    path = f"/stream-bytes/{_BODY}?seed=5"
    wanted = machine.fetch(path)
    expect("the status", (wanted.status, len(wanted.body)), (200, _BODY))
    machine.enclave.fault("starve")
    try:
        asking = threading.Thread(target=lambda: answers.append(machine.fetch(path, timeout=120)))
        asking.start()
        asking.join(4)
        expect("answers while there is no credit", answers, [])
    finally:
        machine.enclave.fault("feed")
    asking.join(120)
    digests = {hashlib.sha256(answer.body).hexdigest() for answer in (*answers, wanted)}
    expect("bodies that differ", (len(answers), len(digests)), (1, 1))
    return "complete after the credit came"


def connections_are_reset(machine: Parent) -> str:
    """When every connection is reset in the middle of a body the client sees it break off, and the next is served."""
    connection = http.client.HTTPConnection("127.0.0.1", machine.port, timeout=90)
    connection.request("GET", f"/{machine.upstream_url}/drip?numbytes=50&duration=60&delay=0")
    response = connection.getresponse()
    expect("the status, and the first byte", (response.status, response.read(1)), (200, b"*"))
    machine.enclave.fault("reset")
    try:
        seen = f"a whole body of {len(response.read())} bytes"
    except (http.client.IncompleteRead, ConnectionResetError) as error:
        seen = type(error).__name__
    connection.close()
    expect("whether it broke off", seen in ("IncompleteRead", "ConnectionResetError"), True)
    seconds = wait_until("a request", 60, machine.served)
    return f"{seen}; served again after {seconds:.1f} s"


def frozen(machine: Parent) -> str:
    """While the enclave is frozen health says so at once; a request made meanwhile is answered when it goes on."""
    answers: list[Answer] = []
    machine.enclave.freeze()
    try:
        waiting = threading.Thread(target=lambda: answers.append(machine.fetch("/uuid", timeout=120)))
        waiting.start()
        health = machine.get("/health", timeout=30)
        expect("status of /health", health.status, 503)
    finally:
        machine.enclave.thaw()
    waiting.join(120)
    expect("the status of the request", [answer.status for answer in answers], [200])
    wait_until("health", 60, machine.healthy)
    return f"/health said so after {health.seconds:.1f} s"


def killed(machine: Parent) -> str:
    """When the enclave is gone requests get 503 at once; the same host daemon serves the next enclave."""
    pid = machine.host_pid
    machine.enclave.kill()
    answer = machine.fetch()
    expect("the answer", (answer.status, answer.json()["error"]), (503, "enclave_unavailable"))
    if answer.seconds > _PROMPT:
        raise Failed(f"503 after {answer.seconds:.1f} s")
    machine.enclave.start()
    up = wait_until("the application in the enclave", _BOOT, machine.ready, pause=0.5)
    seconds = wait_until("a request", 60, machine.served)
    expect("the host daemon's process", machine.host_pid, pid)
    return f"503 after {answer.seconds:.1f} s; up after {up:.0f} s, served {seconds:.1f} s later"


def application_runs_out_of_memory(machine: Parent) -> str:
    """The kernel ends an application that takes all memory; the host hears that it was killed, and the enclave ends."""
    with suppress(Failed, OSError):
        machine.ask("hog")
    status = machine.enclave.wait(120)
    wait_until("the reason in the host's log", 20, lambda: "the application ended with 137" in machine.host_log)
    return f"QEMU ended with {status}; {_last(machine, 'the enclave ended')}"


def application_ends(machine: Parent) -> str:
    """The enclave ends with its application; the host's log and health say with which status and last words, health
    until an enclave answers."""
    machine.enclave.start()
    wait_until("the application in the enclave", _BOOT, machine.ready, pause=0.5)
    with suppress(Failed, OSError):
        machine.ask("leave", status=7)
    machine.enclave.wait(120)
    expect_in("the console", "the command has ended with status 7", machine.console())
    wait_until("the reason in the host's log", 20, lambda: "the application ended with 7" in machine.host_log)
    expect_in("the reason", "application: leaving", _last(machine, "the application ended with 7"))
    said = "Z the enclave said: the enclave ended: the application ended with 7: "
    [check] = machine.get("/health", timeout=20).json()["checks"]["enclave"]
    expect_in("what health shows of the end", said, check["output"])
    machine.enclave.start()
    wait_until("health", _BOOT, machine.healthy)
    machine.enclave.kill()
    [check] = machine.get("/health", timeout=20).json()["checks"]["enclave"]
    expect("whether health shows it when another enclave has answered since", said in check["output"], False)
    return "status 7"


def _last(machine: Parent, words: str) -> str:
    lines = [line for line in machine.host_log.splitlines() if words in line]
    return lines[-1][:300] if lines else ""


def too_little_memory(machine: Parent) -> str:
    """With less memory than `image describe` says the kernel ends with its own words, and nothing listens."""
    machine.enclave.start(memory_mib=144)
    with suppress(subprocess.TimeoutExpired):
        machine.enclave.wait(60)
    expect("whether the gateway is healthy", machine.healthy(), False)
    words = ("Initramfs unpacking failed", "Out of memory", "out of memory", "panic")
    console = machine.console()
    if not any(word in console for word in words):
        raise Failed(f"none of {words} on the console: {console[-400:]!r}")
    machine.enclave.kill()
    return next(word for word in words if word in console)


def host_log_is_clean(machine: Parent) -> str:
    """The host's log has no traceback, and no canary of the demo."""
    canary = json.loads((machine.directory / "demo.json").read_text())["canary"]
    for unwanted in ("Traceback", canary):
        expect(f"whether {unwanted!r} is in the host's log", unwanted in machine.host_log, False)
    return f"{len(machine.host_log.splitlines())} lines"


CHECKS: Final = (
    Check(host_starts, limit=120, vital=True),
    Check(enclave_boots, limit=320, vital=True),
    Check(privileges, limit=60),
    Check(demo_passes, limit=300),
    Check(application_is_served, limit=90),
    Check(without_proxy_settings, limit=120),
    Check(application_runs_demo, limit=300),
    Check(log_arrives, limit=120),
    Check(document_is_verified, limit=60),
    Check(attested_from_outside, limit=150),
    Check(hostile_modules, limit=180),
    Check(clocks, limit=60),
    Check(strangers_are_refused, limit=60),
    Check(starved, limit=300),
    Check(connections_are_reset, limit=200),
    Check(frozen, limit=240),
    Check(killed, limit=400),
    Check(application_runs_out_of_memory, limit=240),
    Check(application_ends, limit=720),
    Check(too_little_memory, limit=120),
    Check(host_log_is_clean),
)


def main(arguments: Sequence[str]) -> None:
    """Run the stage."""
    base, directory = arguments
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    machine = Parent(Path(base), Path(directory))
    try:
        run_checks(machine, CHECKS)
    finally:
        machine.close()
    report(Result(END, "passed", 0.0, ""))


if __name__ == "__main__":
    main(sys.argv[1:])
