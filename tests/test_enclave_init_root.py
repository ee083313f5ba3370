"""The entry point as a whole: real processes, the daemon itself, a host's log listener, over UNIX sockets.

It runs as if it were not root: the interpreter of a developer is not readable for other users.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import defer, reactor, threads
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from nitroproxy.config.ends import Enclave, Transparent
from nitroproxy.config.schema import Settings
from nitroproxy.enclave.init_root import _proxy_variables

_CODE = """
import os, sys
os.geteuid = lambda: 1000
import nitroproxy.transparent.network as network
network.interfaces_up = lambda: {"lo", "eth9"}  # This machine's network stays as it is.
from nitroproxy.commands.enclave_init import main
sys.exit(main())
"""


class Logs(Resource):
    """Takes the enclave's log, as the host does."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def render_POST(self, request: Request) -> bytes:
        """Take the lines."""
        assert request.content is not None
        self.events += map(json.loads, request.content.read().splitlines())
        request.setResponseCode(204)
        return b""


class Ended(ProcessProtocol):
    """Waits for the end of the process."""

    def __init__(self) -> None:
        self.done: defer.Deferred[int] = defer.Deferred()
        self.output = b""
        self.waiting: list[tuple[bytes, defer.Deferred[None]]] = []

    def outReceived(self, data: bytes) -> None:
        """See `ProcessProtocol`."""
        self.output += data
        for words, told in self.waiting:
            if words in self.output and not told.called:
                told.callback(None)

    errReceived = outReceived

    def said(self, words: bytes) -> defer.Deferred[None]:
        """Fires when the process has printed *words*."""
        told: defer.Deferred[None] = defer.Deferred()
        self.waiting.append((words, told))
        self.outReceived(b"")
        return told

    def processEnded(self, reason: Failure) -> None:
        """See `ProcessProtocol`."""
        self.done.callback(0 if reason.check(ProcessDone) else getattr(reason.value, "exitCode", -1))


class RootTests(TestCase):
    """`nitroproxy enclave-init`."""

    timeout = 90

    async def _prepare(self, **sections: object) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        (self.directory / "host").mkdir()
        self.logs = Logs()
        endpoint = UNIXServerEndpoint(reactor, str(self.directory / "host" / "5002.sock"))
        port: IListeningPort = await endpoint.listen(Site(self.logs))
        self.addCleanup(port.stopListening)
        with socket.socket() as any_socket:
            any_socket.bind(("127.0.0.1", 0))
            self.port = any_socket.getsockname()[1]
        transport = {"kind": "unix", "directory": str(self.directory)}
        settings = {"transport": transport, "enclave": {"proxy_port": self.port}, **sections}
        (self.directory / "config.json").write_text(json.dumps(settings))

    def _start(self, *words: str) -> Ended:
        ended = Ended()
        environ = {
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "NITROPROXY_TRANSPORT_KIND": "unix",
            "NITROPROXY_TRANSPORT_DIRECTORY": str(self.directory),
            "NITROPROXY_APP_USER": "65533",
        }
        arguments = [sys.executable, "-c", _CODE, "--config", str(self.directory / "config.json"), *words]
        process = reactor.spawnProcess(ended, sys.executable, arguments, environ)

        def clear() -> Any:
            if not ended.done.called:
                process.signalProcess("KILL")
            return ended.done

        self.addCleanup(clear)
        return ended

    def _messages(self, event: str) -> list[str]:
        return [one["message"] for one in self.logs.events if one["event"] == event]

    async def test_application(self) -> None:
        """The application finds a proxy that listens, its output reaches the host, and its status is the enclave's."""
        await self._prepare()
        says = 'echo "proxy=$HTTPS_PROXY user=$NITROPROXY_APP_USER notify=$NOTIFY_SOCKET"'
        script = f"{says}; exec 3<>/dev/tcp/127.0.0.1/{self.port}; echo open; exit 7"
        ended = self._start("--", "bash", "-c", script)
        self.assertEqual(await ended.done, 7, ended.output)
        self.assertEqual(
            self._messages("application_output"), [f"proxy=http://127.0.0.1:{self.port} user= notify=", "open"]
        )
        [event] = [one for one in self.logs.events if one["event"] == "enclave_ended"]
        self.assertEqual((event["level"], event["status"]), ("critical", 7))
        self.assertIn("the application ended with 7", event["message"])

    async def test_private_application(self) -> None:
        """With logging.application off the application's lines stay in the enclave."""
        await self._prepare(logging={"application": False})
        ended = self._start("echo", "a secret of the application")
        self.assertEqual(await ended.done, 0, ended.output)
        self.assertIn(b"a secret of the application", ended.output)
        self.assertEqual(self._messages("application_output"), [])

    async def test_bad_configuration(self) -> None:
        """A configuration that cannot be used is said to the host, by what the environment says of its log port."""
        await self._prepare(limits={"connections": "many"})
        ended = self._start("true")
        self.assertEqual(await ended.done, 1)
        [message] = self._messages("enclave_did_not_start")
        self.assertIn("limits.connections: expected an integer", message)

    async def test_port_taken(self) -> None:
        """A daemon that cannot listen ends the enclave, and the host hears the daemon's own words."""
        await self._prepare()
        with socket.socket() as other:
            other.bind(("127.0.0.1", self.port))
            other.listen()
            ended = self._start("true")
            self.assertEqual(await ended.done, 1)
        [message] = self._messages("enclave_did_not_start")
        self.assertIn(f"cannot listen on 127.0.0.1:{self.port}", message)

    async def test_other_network(self) -> None:
        """enclave.transparent is refused where another network would bypass it, before anything is changed or started,
        and the host hears which one."""
        await self._prepare(enclave={"proxy_port": 0, "transparent": {"enabled": True}})
        ended = self._start("true")
        self.assertEqual(await ended.done, 1)
        [message] = self._messages("enclave_did_not_start")
        self.assertIn("enclave.transparent: eth9 is up", message)
        self.assertFalse((self.directory / "names").exists())

    async def test_missing_program(self) -> None:
        """An application that is not in the image is found before anything is started."""
        await self._prepare()
        ended = self._start("no-such-program")
        self.assertEqual(await ended.done, 1)
        self.assertIn("no program no-such-program", self._messages("enclave_did_not_start")[0])

    async def test_stopped(self) -> None:
        """SIGTERM ends application and daemon, in this order; nothing of them is left."""
        await self._prepare()
        script = "trap 'echo caught; exit 3' TERM; echo application $$ waits; while :; do sleep 0.1; done"
        ended = self._start("bash", "-c", script)
        await ended.said(b" waits\n")
        [pid] = re.findall(rb"application (\d+) waits", ended.output)
        assert ended.transport is not None
        ended.transport.signalProcess("TERM")
        self.assertEqual(await ended.done, 3, ended.output)
        self.assertIn(b"caught", ended.output)
        self.assertFalse(await threads.deferToThread(os.path.exists, f"/proc/{int(pid)}"))


class VariableTests(SynchronousTestCase):
    """What the application is told of the proxy."""

    def test_transparent(self) -> None:
        """With enclave.transparent it need not know the proxy, and is not told."""
        self.assertEqual(set(_proxy_variables(Settings())), {"HTTPS_PROXY", "https_proxy"})
        transparent = Enclave(transparent=Transparent(enabled=True))
        self.assertEqual(_proxy_variables(Settings(enclave=transparent)), {})
