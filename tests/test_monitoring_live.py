"""Real Prometheus scrapes the running stack: every query of the dashboard gives a value after the demo, and no alert is
pending that a healthy stack should not have."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.ports import free_port

ROOT: Final = Path(__file__).parent.parent
BIN: Final = Path(sys.executable).parent
#: Seconds for anything to happen.
PATIENCE: Final = 120
#: What a panel of the dashboard has in the place of Grafana's variables.
VARIABLES: Final = {"$instance": ".*", "$__rate_interval": "1m"}
#: Alerts on what the demo does on purpose, and on what a machine shows that has more to do than it can.
PROVOKED: Final = {"NitroproxyCertificateErrors", "NitroproxyErrorRate", "NitroproxyLag"}


class PrometheusTests(SynchronousTestCase):
    """The stack on UNIX sockets, the host daemon on two processes, in a directory of its own."""

    def setUp(self) -> None:
        if shutil.which("prometheus") is None:
            raise SkipTest(
                "Prometheus is not installed (apt-get install prometheus); CI=true ./scripts/dev.sh test does"
            )
        self.directory = Path(tempfile.mkdtemp(prefix="np"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.gateway, self.watched, self.prometheus = free_port(), free_port(), free_port()
        self.environ = {
            "PATH": os.environ["PATH"],
            "NITROPROXY_TRANSPORT_DIRECTORY": str(self.directory / "s"),
            "NITROPROXY_TLS_CA_FILE": str(self.directory / "ca.pem"),
            "HOST_PROXY_PORT": str(self.gateway),
            "NITROPROXY_ENCLAVE_PROXY_PORT": str(free_port()),
            "NITROPROXY_HOST_PROXY_HEALTH_PORT": str(self.watched),
            "NITROPROXY_HOST_PROXY_PROCESSES": "2",
        }

    def launch(self, name: str, *command: str) -> None:
        """Start a process that ends with the test."""
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=self.environ, stdout=log, stderr=log)
        self.addCleanup(self.end, process)

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> None:
        """End a process."""
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def get(self, port: int, path: str) -> str:
        """A page; empty when there is none."""
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer,
        ):
            return str(answer.read().decode())
        return ""

    def until(self, look: Callable[[], object], what: str) -> None:
        """Look again and again: a rate needs two scrapes."""
        deadline = time.monotonic() + PATIENCE
        while not look():
            logs = "".join(path.read_text()[-2000:] for path in self.directory.glob("*.log"))
            self.assertLess(time.monotonic(), deadline, f"{what}\n{logs}")
            time.sleep(0.2)

    def ask(self, path: str, **parameters: str) -> Any:
        """What Prometheus's API answers."""
        text = self.get(self.prometheus, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        return json.loads(text)["data"] if text else None

    def start(self) -> None:
        """Start the stack, then Prometheus with our rules, on its own directory."""
        self.launch(
            "upstream", str(BIN / "python"), "-m", "nitroproxy.demo.upstream", "--directory", str(self.directory)
        )
        self.until((self.directory / "upstream.json").exists, "no upstream")
        twistd = (str(BIN / "twistd"), "-n", "--pidfile=", "--reactor=nitroproxy")
        for role in ("enclave", "host"):
            self.launch(role, *twistd, f"nitroproxy-{role}", "--config", "etc/local.json")
        self.until(lambda: self.get(self.watched, "/health/ready"), "the stack is not ready")
        configuration = {
            "global": {"scrape_interval": "3s", "scrape_timeout": "3s", "evaluation_interval": "1s"},
            "rule_files": [str(ROOT / "etc/monitoring/alerts.yml")],
            "scrape_configs": [
                {"job_name": "nitroproxy", "static_configs": [{"targets": [f"127.0.0.1:{self.watched}"]}]}
            ],
        }
        (self.directory / "prometheus.yml").write_text(json.dumps(configuration))  # JSON is YAML
        self.launch(
            "prometheus",
            "prometheus",
            f"--config.file={self.directory}/prometheus.yml",
            f"--storage.tsdb.path={self.directory}/data",
            f"--web.listen-address=127.0.0.1:{self.prometheus}",
        )
        self.until(lambda: self.value("count_over_time(nitroproxy_up{role='enclave'}[1m]) > 2"), "no scrape")

    def value(self, query: str) -> list[float]:
        """The values that a query has now, without those that are none."""
        answer = self.ask("query", query=query)
        values = [float(one["value"][1]) for one in answer["result"]] if answer else []
        return [value for value in values if value == value]

    def demonstrate(self) -> None:
        """Run the demo through the gateway."""
        upstream = str(self.directory / "upstream.json")
        demo = (str(BIN / "nitroproxy"), "demo", "--proxy", f"http://127.0.0.1:{self.gateway}", "--upstream", upstream)
        done = subprocess.run(demo, check=False, capture_output=True, text=True, env=self.environ, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def alerts(self) -> set[str]:
        """The names of the alerts that fire or are pending."""
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"]}

    def test_dashboard(self) -> None:
        """See the module."""
        self.start()
        # Twice: what a counter has when it is first seen is no increase.
        self.demonstrate()
        self.until(lambda: self.value('nitroproxy_tls_handshakes_total{result="ok"} > 0'), "no demo in the metrics")
        self.demonstrate()
        increase = 'increase(nitroproxy_requests_total{hop="nitroproxy-enclave", code="2xx"}[1m]) > 0'
        self.until(lambda: self.value(increase), "no increase")
        dashboard = json.loads((ROOT / "etc/monitoring/dashboard.json").read_text("utf-8"))
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                query = target["expr"]
                for name, text in VARIABLES.items():
                    query = query.replace(name, text)
                self.until(partial(self.value, query), f"{panel['title']}: {query}")
        self.assertEqual(self.value('nitroproxy_health{layer="egress", status="pass"}'), [1.0])
        self.until(lambda: "NitroproxyCertificateErrors" in self.alerts(), "no alert for what the demo provokes")
        self.assertEqual(self.alerts() - PROVOKED, set())
