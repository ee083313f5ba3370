"""What the credentials daemon is made of; and the daemon itself, under twistd, with a stand-in for EC2's service."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import defer, reactor, threads
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.trial.unittest import SynchronousTestCase, TestCase

from nitroproxy.config.schema import Credentials, Settings
from nitroproxy.config.traffic import Limits
from nitroproxy.credentials.components import CredentialsRole, _metadata_service
from nitroproxy.daemon.place import Unable
from tests.imds import ROLE, Imds
from tests.roles import FakeReactor, ask_nothing, no_rest

TWISTD = Path(sys.executable).with_name("twistd")


class ComponentsTests(SynchronousTestCase):
    """Its parts, on a reactor that does nothing."""

    def setUp(self) -> None:
        self.socket = str(Path(self.mktemp()).absolute() / "credentials.sock")
        self.settings = Settings(credentials=Credentials(role=ROLE, socket=self.socket))
        self.reactor: Any = FakeReactor()
        self.role = CredentialsRole()

    def test_place(self) -> None:
        """One process, at one UNIX socket, in a directory that others cannot enter."""
        [[server]] = self.role.servers(self.reactor, self.settings)
        self.assertEqual((server.name, server.hop), (self.socket, "nitroproxy-credentials"))
        self.assertEqual(stat.S_IMODE(os.stat(Path(self.socket).parent).st_mode) & 0o007, 0)
        self.assertEqual(self.role.processes(self.settings), 1)
        process = self.role.process(self.reactor, self.settings, 1, None)
        serving = self.role.serving(process, self.settings, None, ask_nothing)
        self.assertEqual([factory.hop for factory in serving.factories], ["nitroproxy-credentials"])
        once = self.role.once(process, self.settings, no_rest())
        self.assertEqual((list(once.places), dict(once.answerers)), ([], {}))
        once.prepare(self.settings)()

    def test_reload(self) -> None:
        """Limits are reloaded; there are never more connections than a few of each host process."""
        process = self.role.process(self.reactor, self.settings, 1, None)
        serving = self.role.serving(process, self.settings, None, ask_nothing)
        self.assertEqual(serving.factories[0].settings.connections, 256)
        serving.prepare(msgspec.structs.replace(self.settings, limits=Limits(connections=7)))()
        self.assertEqual(serving.factories[0].settings.connections, 7)

    def test_no_role(self) -> None:
        """Without a role there is nothing to do: one line, and status 1."""
        told = io.StringIO()
        self.patch(sys, "__stderr__", told)
        self.role.check(self.settings)
        self.assertRaises(Unable, self.role.check, Settings())
        self.assertIn("credentials.role: not set", told.getvalue())

    def test_no_directory(self) -> None:
        """A directory that cannot be made: one line that names the key."""
        told = io.StringIO()
        self.patch(sys, "__stderr__", told)
        settings = Settings(credentials=Credentials(role=ROLE, socket="/proc/nothing/credentials.sock"))
        self.assertRaises(Unable, self.role.servers, self.reactor, settings)
        self.assertIn("nitroproxy-credentials: credentials.socket: ", told.getvalue())

    def test_metadata_service(self) -> None:
        """The address, by IPv4 or IPv6, and the port."""
        for url, kind, host, port, authority in (
            ("http://169.254.169.254", TCP4ClientEndpoint, "169.254.169.254", 80, "169.254.169.254"),
            ("http://[fd00:ec2::254]", TCP6ClientEndpoint, "fd00:ec2::254", 80, "[fd00:ec2::254]"),
            ("http://127.0.0.1:1338", TCP4ClientEndpoint, "127.0.0.1", 1338, "127.0.0.1:1338"),
        ):
            endpoint, name = _metadata_service(self.reactor, url)
            self.assertIsInstance(endpoint, kind)
            made: Any = endpoint
            self.assertEqual((made._host, made._port, name), (host, port, authority))


class DaemonTests(TestCase):
    """`twistd nitroproxy-credentials`."""

    timeout = 60

    async def test_daemon(self) -> None:
        """It listens with mode 0660, serves what the metadata service gives, and logs no part of it."""
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        imds = Imds()
        port: IListeningPort = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(imds.site())
        self.addCleanup(port.stopListening)
        address: Any = port.getHost()
        place = directory / "s" / "credentials.sock"
        section = {"role": ROLE, "socket": str(place), "metadata_url": f"http://127.0.0.1:{address.port}"}
        transport = {"kind": "unix", "directory": str(directory)}
        settings = {"transport": transport, "credentials": section, "logging": {"level": "DEBUG"}}
        (directory / "config.json").write_text(json.dumps(settings))
        words = [str(TWISTD), "-n", "--pidfile=", "--reactor=nitroproxy", "nitroproxy-credentials"]
        process = subprocess.Popen(
            [*words, "--config", str(directory / "config.json")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
        )
        try:
            log = await threads.deferToThread(_until_listening, process)
            answer = await self._curl(place, "/credentials")
            self.assertEqual(json.loads(answer)["AccessKeyId"], "ASIAEXAMPLEEXAMPLE00")
            self.assertEqual(stat.S_IMODE(os.stat(place).st_mode), 0o660)
            self.assertIn(b'"pass"', await self._curl(place, "/health"))
        finally:
            process.terminate()
            rest, _ = await threads.deferToThread(process.communicate)
        self.assertEqual(
            imds.requests, ["PUT /latest/api/token", f"GET /latest/meta-data/iam/security-credentials/{ROLE}"]
        )
        log += rest
        self.assertEqual(process.returncode, 0, log)
        for secret in json.loads(answer).values():
            self.assertNotIn(secret.encode(), log)
        self.assertFalse(place.exists())

    @staticmethod
    def _curl(place: Path, path: str) -> defer.Deferred[bytes]:
        """What the daemon answers."""
        words = ["curl", "-sS", "--max-time", "20", "--unix-socket", str(place), f"http://localhost{path}"]

        def ask() -> bytes:
            return subprocess.run(words, check=True, capture_output=True).stdout

        return threads.deferToThread(ask)


def _until_listening(process: subprocess.Popen[bytes]) -> bytes:
    """What the daemon has logged by the time it listens."""
    assert process.stdout is not None
    log = b""
    for line in process.stdout:
        log += line
        if b"listening on" in line:
            return log
    raise AssertionError(log)
