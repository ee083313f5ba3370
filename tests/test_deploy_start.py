"""Waiting for the gateway, and what is said when it does not come. The units themselves: test_deploy_main."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.ends import HostProxy
from nitroproxy.deploy import start
from nitroproxy.deploy.failure import Refused
from nitroproxy.deploy.machine import Machine
from tests.deploying import script
from tests.ports import free_port


class Pages(BaseHTTPRequestHandler):
    """A gateway that has one body for all pages."""

    status = 503
    body = b""

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class ReadyTests(SynchronousTestCase):
    """A gateway that answers, one that does not, and one that talks nonsense."""

    def setUp(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        script(directory / "journalctl", 'echo "$*"; echo last words')
        self.machine = Machine(directory, {"PATH": f"{directory}:{os.environ['PATH']}"})
        self.patch(start, "_INTERVAL", 0.01)

        class Handler(Pages):
            pass

        self.pages: type[Pages] = Handler
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.gateway = HostProxy(port=self.server.server_port)
        serving = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        serving.start()
        self.addCleanup(serving.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    def refused(self, gateway: HostProxy | None = None) -> Refused:
        error: Refused = self.assertRaises(Refused, start.wait_until_ready, self.machine, gateway or self.gateway, 0.0)
        return error

    def test_ready(self) -> None:
        """It is waited for until it is ready."""
        self.pages.status = 200
        start.wait_until_ready(self.machine, self.gateway, 5.0)

    def test_failing_layer(self) -> None:
        """The first layer that fails is named, with the end of the journal of the unit that has the reason."""
        for layer, unit in (("vsock", start.ENCLAVE), ("dns", start.HOST)):
            checks = {"host": [{"status": "pass"}], layer: [{"status": "fail", "output": "why"}]}
            self.pages.body = json.dumps({"checks": checks}).encode()
            error = self.refused()
            self.assertEqual(str(error), f"not ready after 0 seconds: {layer} fails: why")
            self.assertEqual(error.details.splitlines()[0], f"the end of the journal of {unit}:")
            self.assertIn(f"--unit {unit} --lines 20", error.details)
            self.assertTrue(error.details.endswith("last words"))

    def test_nonsense(self) -> None:
        """A page that is none, and no page at all, are said to be."""
        for body in (b"", b"[]", b'{"checks": {"host": []}}', b'{"checks": {}}', b"\xff"):
            self.pages.body = body
            self.assertIn("host fails: the health page", str(self.refused()))
        error = self.refused(HostProxy(port=free_port()))
        self.assertIn("host fails: the gateway does not answer", str(error))

    def test_listen_file(self) -> None:
        """The socket unit listens where the configuration wants the gateway; usually it does by itself."""
        self.assertEqual(start.listen_file(HostProxy()), "")
        self.assertIn("ListenStream=\nListenStream=127.0.0.1:80\n", start.listen_file(HostProxy(port=80)))
        self.assertIn("ListenStream=[::1]:8080\n", start.listen_file(HostProxy(interface="::1")))
