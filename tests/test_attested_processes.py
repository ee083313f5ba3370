"""The enclave daemon as processes of its own, with an NSM that is none: gates that fail, and several workers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, readBody

from nitroproxy.attestation.evidence import Identity
from nitroproxy.telemetry.logs import Lines
from nitroproxy.tls.attested_endpoint import AttestedTLS, Verifier, identity_of
from tests.attestation.fake_nsm import FakeNsm
from tests.chain import ChainCase, Gathering

reactor: Any = global_reactor
_ROOT = Path(__file__).resolve().parent.parent
_INIT = "import os, sys; os.geteuid = lambda: 1000; from nitroproxy.commands.enclave_init import main; sys.exit(main())"


class Daemon(ProcessProtocol):
    """A process whose end is waited for."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()
        self.output = b""

    def outReceived(self, data: bytes) -> None:
        self.output += data

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)


class ProcessCase(ChainCase):
    """The host daemon in this process, the enclave's elsewhere."""

    tapped = False
    timeout = 120

    async def setUp(self) -> None:  # type: ignore[override]
        self.fake = Path(self.mktemp()).absolute()
        (self.fake / "clocks").mkdir(parents=True)
        self.clocks("tsc", "tsc")
        self.variant("good")
        await super().setUp()
        await self.stop("enclave")

    def clocks(self, current: str, available: str) -> None:
        """What sysfs says."""
        (self.fake / "clocks" / "current_clocksource").write_text(current)
        (self.fake / "clocks" / "available_clocksource").write_text(available)

    def variant(self, name: str) -> None:
        """What is wrong with the module."""
        (self.fake / "variant").write_text(name)

    def environment(self) -> Mapping[str, str]:
        """With the NSM that is none."""
        path = os.pathsep.join([str(_ROOT / "tests" / "attestation" / "site"), str(_ROOT)])
        return {**os.environ, "FAKE_NSM": str(self.fake), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}

    def configured(self, **more: object) -> str:
        """The enclave's configuration file."""
        own = {"attestation__device": os.devnull, "attestation__emulated": True}
        return self.configure("enclave", **{**own, **more})


class GateTests(ProcessCase):
    """A gate that fails keeps the daemon from listening, and the host knows which and why."""

    async def check(self, gate: str, *words: str) -> None:
        """Start the enclave in vain."""
        events: list[Mapping[str, Any]] = []
        self.patch(Lines, "take", lambda lines, fields: events.append(fields))
        arguments = ["-c", _INIT, "--config", self.configured()]
        out, _, code = await getProcessOutputAndValue(sys.executable, arguments, self.environment())
        self.assertEqual(code, 1, out)
        self.assertFalse((self.directory / "both" / "enclave" / "5443.sock").exists())
        self.assertFalse((self.directory / "both" / "enclave" / "5000.sock").exists())
        [logged] = [one for one in events if one.get("event") == "enclave_did_not_start"]
        _, checks = await self.health()
        await self.until(True, self.is_known)  # the host looks every five seconds
        status = ["-c", "import sys; from nitroproxy.commands.main import main; sys.exit(main())", "status"]
        shown, _, code = await getProcessOutputAndValue(
            sys.executable, [*status, "--url", f"http://127.0.0.1:{self.port}"], os.environ
        )
        for told in (str(logged), checks["enclave"][0]["output"], shown.decode()):
            self.assertIn("the enclave did not start", told)
            for word in (f"the gate '{gate}' has failed", *words):
                self.assertIn(word, told.replace("\\'", "'"))

    async def is_known(self) -> bool:
        """Whether the status document tells that the enclave did not start."""
        response: Any = await self.agent.request(b"GET", f"http://127.0.0.1:{self.port}/status.json".encode())
        return b"the enclave did not start" in await readBody(response)

    async def test_no_nsm(self) -> None:
        """A device that is no NSM."""
        self.variant("none")
        await self.check("nsm", "the NSM failed at DescribeNSM")

    async def test_equal_random(self) -> None:
        """Two equal answers to GetRandom."""
        self.variant("equal random")
        await self.check("random", "the same bytes twice")

    async def test_clock_source(self) -> None:
        """An emulated enclave that has a Nitro hypervisor's clock."""
        self.clocks("kvm-clock", "kvm-clock tsc")
        await self.check("clocksource", "attestation.emulated is true, but this machine has kvm-clock")

    async def test_clock(self) -> None:
        """A clock that is off by ten seconds."""
        self.variant("slow clock")
        await self.check("clock", "differs from an attestation document's by -10.0 s")


class WorkerTests(ProcessCase):
    """An enclave daemon of two processes."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.socket = self.directory / "both" / "enclave" / "5443.sock"
        self.agent = Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))
        self.daemon = Daemon()
        twistd = Path(sys.executable).parent / "twistd"
        words = [str(twistd), "-n", "--pidfile=", "--reactor=nitroproxy", "nitroproxy-enclave", "--config"]
        words.append(self.configured(enclave__processes=2, limits__connections=300))
        self.process = reactor.spawnProcess(self.daemon, words[0], words, self.environment())
        self.addCleanup(self.end)
        await self.until(True, self.is_healthy)
        roots = frozenset({bytes.fromhex((self.fake / "root").read_text())})
        verifier = Verifier(FakeNsm().policy, roots=roots, now=lambda: datetime.now(UTC))
        self.tls = AttestedTLS(verifier)

    async def end(self) -> None:
        """End the daemon."""
        try:
            self.process.signalProcess("KILL")
        except ProcessExitedAlready:
            return
        await self.daemon.ended

    async def is_healthy(self) -> bool:
        """Whether the enclave answers, with both workers."""
        self.assertFalse(self.daemon.ended.called, self.daemon.output)
        _, checks = await self.health()
        workers = checks.get("enclave_workers", [{}])[0]
        return bool(workers.get("output") == "2 answer")

    async def identity(self) -> Identity:
        """What a new connection proves."""
        endpoint = self.tls.wrap(UNIXClientEndpoint(reactor, str(self.socket)), "enclave", reactor)
        protocol: Any = await endpoint.connect(Factory.forProtocol(Gathering))
        identity = identity_of(protocol.transport)
        assert identity is not None
        protocol.transport.loseConnection()
        await protocol.ended
        return identity

    async def handshakes(self) -> dict[str, int]:
        """The handshakes of each worker."""
        response: Any = await self.agent.request(b"GET", f"http://127.0.0.1:{self.port}/metrics".encode())
        counts = {}
        for line in (await readBody(response)).decode().splitlines():
            if line.startswith("nitroproxy_attested_handshakes_total") and 'result="ok"' in line:
                labels, _, value = line.rpartition(" ")
                counts[labels.partition('worker="')[2].partition('"')[0]] = int(float(value))
        return counts

    def workers(self) -> list[int]:
        """The processes that the daemon has started."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    async def test_one_identity(self) -> None:
        """200 connections show one key, whichever worker served them; both did. The key is in no file of the daemon's,
        nor in an environment or command line."""
        keys = {(await self.identity()).spki for _ in range(200)}
        self.assertEqual(len(keys), 1)
        counts = await self.handshakes()
        self.assertEqual(set(counts), {"1", "2"})
        self.assertEqual(sum(counts.values()), 200)
        self.assertGreater(min(counts.values()), 0)
        for pid in (self.process.pid, *self.workers()):
            told = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
            self.assertNotIn(b"PRIVATE", told)
            self.assertLess(len(told), 65536)
            files = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
            kept = [name for name in files if name.startswith("/") and not name.startswith(("/dev/", "/memfd:"))]
            self.assertEqual(kept, [])

    async def test_user_data(self) -> None:
        """What is registered through one worker is in the certificate of both, from then on; other workers in killed
        ones' places have the same key and data."""
        for data in (b"first", b"second"):
            url = f"http://127.0.0.1:{self.loopback}/enclave/attestation/user-data"
            response = await treq.put(url, data=data, agent=self.agent)
            self.assertEqual(response.code, 204)
            before = await self.handshakes()
            proven = [(await self.identity()).user_data for _ in range(60)]
            self.assertEqual(set(proven), {data})
            after = await self.handshakes()
            self.assertEqual([worker for worker in after if after[worker] <= before[worker]], [])
        known = await self.identity()
        for pid in self.workers():
            os.kill(pid, signal.SIGKILL)
        await deferLater(reactor, 0.2, lambda: None)
        await self.until(True, self.is_healthy)
        found = [await self.identity() for _ in range(20)]
        self.assertEqual({(one.spki, one.user_data) for one in found}, {(known.spki, b"second")})
