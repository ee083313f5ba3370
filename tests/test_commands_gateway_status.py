"""The status of the running stack, asked of a server of the test's own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.commands.gateway_status import look, render

HEALTH = {
    "status": "fail",
    "checks": {"host": [{"status": "pass"}], "enclave": [{"status": "fail", "output": "does not answer"}]},
}
METRICS = """# TYPE process_start_time_seconds gauge
process_start_time_seconds{role="host"} 1000
# TYPE nitroproxy_requests_total counter
nitroproxy_requests_total{role="host",hop="nitroproxy-host",method="GET",code="2xx"} 5
nitroproxy_requests_total{role="host",hop="nitroproxy-host",method="GET",code="5xx"} 2
nitroproxy_requests_total{role="host",hop="nitroproxy-relay",method="CONNECT",code="2xx"} 100
# TYPE nitroproxy_bytes_total counter
nitroproxy_bytes_total{role="host",hop="nitroproxy-host",direction="sent",kind="request"} 2048
"""


class StatusTests(SynchronousTestCase):
    """What is shown of what the gateway says."""

    def setUp(self) -> None:
        self.pages: dict[str, tuple[int, str]] = {
            "/health": (503, json.dumps(HEALTH)),
            "/metrics": (200, METRICS),
        }
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(lambda: self.pages))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.url = f"http://127.0.0.1:{server.server_port}"

    def test_failing(self) -> None:
        """Each layer with why it fails, and the traffic of each daemon since it started."""
        status = look(self.url)
        self.assertFalse(status.good)
        lines = render(status, 1000 + 3 * 3600 + 61).splitlines()
        self.assertEqual(lines[0], f"{self.url}: fail")
        self.assertEqual(lines[1].split(), ["ok", "host"])
        self.assertEqual(lines[2].split(None, 2), ["FAIL", "enclave", "does not answer"])
        self.assertIn("host: up 3h 1m, 7 requests, 0 errors, 0 connections, 0 B in, 2.0 KiB out", lines[-2])
        self.assertEqual(json.loads(json.dumps(status.to_dict()))["layers"]["enclave"]["status"], "fail")

    def test_unknown(self) -> None:
        """What the gateway could not ask, as the enclave is dead, is unknown: neither ok, nor left out, nor zero."""
        status = look(self.url)
        unknown = ["vsock", "egress", "dns", "policy", "tls_verification"]
        self.assertEqual([layer.name for layer in status.layers if layer.status == "unknown"], unknown)
        lines = render(status, 0).splitlines()
        for name in unknown:
            self.assertIn(["unknown", name], [line.split() for line in lines])
        self.assertIn("enclave: traffic unknown", lines[-1])
        self.assertEqual(status.to_dict()["layers"]["policy"]["status"], "unknown")  # type: ignore[index]

    def test_warning(self) -> None:
        """A warning is no failure."""
        self.pages["/health"] = (200, json.dumps({**HEALTH, "status": "warn"}))
        self.assertTrue(look(self.url).good)

    def test_several_processes(self) -> None:
        """A daemon of several processes is up since its first one began, whichever was started again since."""
        several = METRICS.replace('{role="host"} 1000', '{role="host",worker="1"} 3000') + (
            'process_start_time_seconds{role="host",worker="supervisor"} 1000\n'
        )
        self.pages["/metrics"] = (200, several)
        self.assertEqual(look(self.url).up_since, {"host": 1000})

    def test_without_metrics(self) -> None:
        """Without metrics the layers are shown all the same."""
        self.pages["/metrics"] = (500, "nonsense{")
        lines = render(look(self.url), 0).splitlines()
        self.assertEqual([line.split()[1] for line in lines[1:3]], ["host", "enclave"])
        self.assertEqual(sum("traffic unknown" in line for line in lines), 2)

    def test_not_there(self) -> None:
        """No server, or one of another kind, at that address."""
        self.pages["/health"] = (200, "hello")
        for url, words in (
            (self.url, "what answers is not the gateway"),
            ("http://127.0.0.1:1", "the gateway does not answer: Connection refused"),
            ("http://127.0.0.1:x", "the gateway does not answer: nonnumeric port: 'x'"),
        ):
            status = look(url)
            self.assertFalse(status.reachable or status.good)
            self.assertEqual(render(status, 0), f"{url}: {words}")


def handler(pages: Callable[[], dict[str, tuple[int, str]]]) -> type[BaseHTTPRequestHandler]:
    """A request handler that serves *pages*."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = pages()[self.path]
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    return Handler
