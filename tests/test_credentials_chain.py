"""The whole way of the role's credentials: a metadata service, three daemons and enclave-init as processes, and boto3
as the application in the enclave."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from twisted.internet import reactor, threads
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.trial.unittest import TestCase

from tests.imds import ROLE, Imds
from tests.processes import Daemon

#: enclave-init, as if it were not root: the interpreter of a developer is not readable for other users.
_INIT = """
import os, sys
os.geteuid = lambda: 1000
from nitroproxy.commands.enclave_init import main
sys.exit(main())
"""

_APPLICATION = """
import http.client, json, os, time
from urllib.parse import urlsplit
import botocore.session

url, token = os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"], os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
assert not any(name.startswith("NITROPROXY_CREDENTIALS") for name in os.environ)

credentials = botocore.session.Session().get_credentials()
first = credentials.get_frozen_credentials().access_key
print("method", credentials.method, flush=True)
print("first", first, flush=True)
while (key := credentials.get_frozen_credentials().access_key) == first:
    time.sleep(0.2)
print("renewed", key, flush=True)

place = urlsplit(url)

def ask(target, method="GET", **fields):
    connection = http.client.HTTPConnection(place.hostname, place.port)
    connection.request(method, target, headers={name.replace("_", "-"): value for name, value in fields.items()})
    answer = connection.getresponse()
    body = answer.read()
    assert (b"SecretAccessKey" in body) == (answer.status == 200), body
    return answer.status

print("answers", json.dumps([
    ask(place.path, authorization=token),
    ask(place.path),
    ask(place.path, authorization=token[:-1] + "x"),
    ask(place.path, authorization=token, x_forwarded_for="127.0.0.1"),
    ask(place.path, authorization=token, origin="http://127.0.0.1"),
    ask(place.path, authorization=token, host="evil.example"),
    ask(place.path, "POST", authorization=token),
    ask(place.path + "/", authorization=token),
    ask("/credentials", authorization=token),
    ask("/latest/meta-data/iam/security-credentials/", authorization=token),
    ask(url, authorization=token),
    ask("/https://169.254.169.254/latest/meta-data/", authorization=token),
]), flush=True)
print("token", token, flush=True)
"""

#: A line of the application in init's output.
_SAID = re.compile(r"(?m)^\S+ info  (method|first|renewed|answers|token) (.*)$")


class ChainTests(TestCase):
    """From the metadata service to boto3."""

    timeout = 120

    def setUp(self) -> None:
        # A short name: that of a UNIX socket has 107 bytes at most.
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.daemons: list[Daemon] = []

    async def _start(self, imds: Imds) -> Path:
        """Start what runs on the host; the configuration."""
        port: IListeningPort = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(imds.site())
        self.addCleanup(port.stopListening)
        address: Any = port.getHost()
        self.ports = _free_ports()
        settings: dict[str, Mapping[str, object]] = {
            "transport": {"kind": "unix", "directory": str(self.directory)},
            "enclave": {"proxy_port": self.ports[0], "processes": 2},
            "host_proxy": {"port": self.ports[1], "processes": 2},
            "credentials": {
                "role": ROLE,
                "socket": str(self.directory / "c" / "c.sock"),
                "metadata_url": f"http://127.0.0.1:{address.port}",
            },
        }
        config = self.directory / "config.json"
        config.write_text(json.dumps(settings))
        for plugin in ("nitroproxy-credentials", "nitroproxy-host"):
            daemon = self._add(Daemon.twistd(plugin, config))
            await daemon.said(b"c.sock" if plugin == "nitroproxy-credentials" else b"worker 2 started")
        return config

    def _add(self, daemon: Daemon) -> Daemon:
        self.daemons.append(daemon)
        self.addCleanup(daemon.end)
        return daemon

    async def _enclave(self, config: Path) -> Daemon:
        """Run the application in the enclave; when it has ended."""
        environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(self.directory),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        words = [sys.executable, "-c", _INIT, "--config", str(config), "--", sys.executable, "-c", _APPLICATION]
        enclave = self._add(Daemon(words, environ))
        self.assertEqual(await enclave.wait(), 0, enclave.output.decode())
        return enclave

    async def test_boto3(self) -> None:
        """boto3 finds credentials without code, and newer ones when these are about to end; any other request, path,
        form or host gets nothing; and no part of them, nor the token, is in a log of any process."""
        imds = Imds()
        imds.lifetime, imds.renews = 60.0, True
        config = await self._start(imds)
        enclave = await self._enclave(config)
        told: dict[str, str] = dict(_SAID.findall(enclave.output.decode()))
        self.assertEqual(told["method"], "container-role")
        self.assertRegex(told["first"], r"^ASIAEXAMPLEEXAMPLE\d\d$")
        self.assertNotEqual(told["renewed"], told["first"])
        self.assertEqual(json.loads(told["answers"]), [200, 403, 403, 403, 403, 403, 405, 404, 404, 404, 403, 403])
        self.assertEqual(len(told["token"]), 64)
        for path, place in (
            ("/enclave/credentials", ["--url", f"http://127.0.0.1:{self.ports[1]}/enclave/credentials"]),
            ("/credentials", ["--url", f"http://127.0.0.1:{self.ports[1]}/credentials"]),
        ):
            answer = await _curl(*place, "-H", f"Authorization: {told['token']}")
            self.assertNotIn(b"SecretAccessKey", answer, path)
            self.assertIn(b"not_found", answer, path)
        health = json.loads(await _curl("--url", f"http://127.0.0.1:{self.ports[1]}/health"))
        self.assertEqual(health["checks"]["credentials"][0]["status"], "pass", health)
        metrics = await _curl("--url", f"http://127.0.0.1:{self.ports[1]}/metrics")
        self.assertRegex(
            metrics.decode(), r'credentials_requests_total{outcome="given",role="host",worker="[12]"} [1-9]'
        )
        for daemon in self.daemons[:2]:
            await daemon.end()
        for output in (daemon.output for daemon in self.daemons):
            for secret in (*imds.secrets, told["token"]):
                logged = b"\n".join(line for line in output.splitlines() if b"token " not in line)
                self.assertNotIn(secret.encode(), logged)

    async def test_host_listener(self) -> None:
        """The host has no such page at the enclave's own listener, whatever token it sends."""
        imds = Imds()
        config = await self._start(imds)
        token = "5f" * 32
        raw = json.loads(config.read_text())
        raw["credentials"]["token_sha256"] = sha256(token.encode()).hexdigest()
        config.write_text(json.dumps(raw))
        enclave = self._add(Daemon.twistd("nitroproxy-enclave", config))
        await enclave.said(b"worker 2 started")
        place = str(self.directory / "enclave" / "5000.sock")
        for path in ("/enclave/credentials", "/enclave/kms/open", "/enclave/kms/recipient"):
            answer = await _curl(
                "--unix-socket", place, "-H", f"Authorization: {token}", f"http://127.0.0.1{path}", "-X", "POST"
            )
            self.assertIn(b"not_found", answer, path)
        self.assertEqual(imds.requests, [])


def _curl(*words: str) -> Any:
    def ask() -> bytes:
        return subprocess.run(["curl", "-sS", "--max-time", "20", *words], check=True, capture_output=True).stdout

    return threads.deferToThread(ask)


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]
