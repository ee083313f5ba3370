"""The status of the running stack, asked of a server of the test's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.commands.gateway_status import look, render
from nitroproxy.host.status import Daemon, Room, Status
from nitroproxy.telemetry.states import State
from tests.statuses import GATEWAY, healthy


class StatusTests(SynchronousTestCase):
    """What is shown of what the gateway says."""

    def setUp(self) -> None:
        self.pages: dict[str, tuple[int, str]] = {}
        self.serve(healthy())
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(lambda: self.pages))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.url = f"http://127.0.0.1:{server.server_port}"

    def serve(self, status: Status) -> None:
        self.pages["/status.json"] = (200, msgspec.json.encode(status).decode())

    def lines(self) -> list[str]:
        return render(look(self.url)).splitlines()

    def test_healthy(self) -> None:
        """Each layer with since when, the traffic of each daemon since it started, the enclave's memory, failures."""
        status = look(self.url)
        self.assertTrue(status.good)
        lines = render(status).splitlines()
        self.assertEqual(lines[0], f"{self.url}: pass")
        self.assertEqual(lines[1].split(), ["ok", "host", "1h", "0m"])
        self.assertIn(
            "  host: up 1d 1h, 220000000 requests, 408515 of them 5xx, 19 under way, 87.5 GiB in, 1.9 TiB out", lines
        )
        self.assertIn("  enclave: 171.7 MiB of 495.9 MiB of memory used", lines)
        self.assertEqual(lines[-6], "  latest failures:")
        self.assertEqual(lines[-4].split(None, 3)[:3], ["12s", "ago", "dns_error"])
        self.assertIn(f"×2, found by nitroproxy-relay  host-1.example:443  {'a' * 32}", lines[-4])
        document = json.loads(json.dumps(status.to_dict()))
        self.assertEqual((document["reachable"], document["layers"][0]["layer"]), (True, "host"))

    def test_failing(self) -> None:
        """A layer that fails says why and for how long; one that is not known is neither ok nor left out."""
        layers = [State("vsock", "fail", "no listener", 65.0), State("egress", "unknown", "", 65.0)]
        daemons = [Daemon("host", True, "1", None, True, 0.0), Daemon("enclave", False, None, None, None, None)]
        self.serve(healthy(status="fail", layers=layers, daemons=daemons, failures=[], room=[]))
        self.assertFalse(look(self.url).good)
        lines = self.lines()
        self.assertEqual(lines[1].split(None, 4), ["FAIL", "vsock", "1m", "5s", "no listener"])
        self.assertEqual(lines[2].split(), ["unknown", "egress", "1m", "5s"])
        self.assertEqual(sum("traffic unknown" in line for line in lines), 2)

    def test_failed_reload(self) -> None:
        """A configuration that was not taken is said, and is no failure of a layer."""
        daemons = [Daemon("host", True, "1", 1.0, False, 0.0), Daemon("enclave", True, "1", 1.0, True, 0.0)]
        self.serve(healthy(daemons=daemons))
        self.assertTrue(look(self.url).good)
        self.assertEqual(next(line for line in self.lines() if "did not take" in line).split()[1], "host")
        self.assertEqual(sum("did not take" in line for line in self.lines()), 1)

    def test_room(self) -> None:
        """What is nearly used up is said."""
        self.serve(healthy(room=[Room("connections", GATEWAY, 81.0, 100.0), Room("descriptors", "host", 1.0, 100.0)]))
        self.assertIn("  nitroproxy-host: 81 of 100 connections used", self.lines())
        self.assertFalse([line for line in self.lines() if "descriptors" in line])

    def test_warning(self) -> None:
        """A warning is no failure; what has not been examined yet is not good."""
        for status, good in (("warn", True), ("unknown", False), ("fail", False)):
            self.serve(healthy(status=status))
            self.assertEqual(look(self.url).good, good)
        self.serve(healthy(status="unknown", layers=[]))
        self.assertIn("no layer has been examined yet", self.lines()[1])

    def test_no_status_there(self) -> None:
        """A health listener without the status says so."""
        self.pages = {
            "/status.json": (404, '{"error": "not_found"}'),
            "/health": (200, '{"serviceId": "nitroproxy-host", "checks": {}}'),
        }
        self.assertEqual(
            self.lines(), [f"{self.url}: nitroproxy-host answers, but has no status there (host_proxy.health_status)"]
        )

    def test_not_there(self) -> None:
        """No server, or one of another kind, at that address."""
        for answer in ("hello", "[]", '{"layers": 5}', "nonsense{"):
            self.pages = {"/status.json": (200, answer)}
            self.assertEqual(self.lines(), [f"{self.url}: what answers is not the gateway"])
        self.pages = {"/status.json": (500, '{"layers": []}')}
        self.assertEqual(self.lines(), [f"{self.url}: the gateway answers 500"])
        for url, words in (
            ("http://127.0.0.1:1", "the gateway does not answer: Connection refused"),
            ("http://127.0.0.1:x", "the gateway does not answer: nonnumeric port: 'x'"),
        ):
            status = look(url)
            self.assertFalse(status.reachable or status.good)
            self.assertEqual(status.status, "fail")
            self.assertEqual(render(status), f"{url}: {words}")


def handler(pages: Callable[[], dict[str, tuple[int, str]]]) -> type[BaseHTTPRequestHandler]:
    """A request handler that serves *pages*."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = pages().get(self.path, (404, "nothing"))
            self.send_response(code)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    return Handler
