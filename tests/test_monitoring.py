"""What is in etc/monitoring and etc/aws: alerts, dashboard, CloudWatch. With Prometheus: `test_monitoring_live`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

ROOT = Path(__file__).parent.parent
ALERTS = (ROOT / "etc/monitoring/alerts.yml").read_text("utf-8")
GUIDE = (ROOT / "docs/operations.md").read_text("utf-8")
#: Units that CloudWatch knows (PutMetricData), and those of them that are used.
UNITS = {"None", "Count", "Bytes", "Seconds"}
#: What the labels of the CloudWatch dimensions are set by, besides our own.
SCRAPE_LABELS = {"host"}
WANTED = [
    "HostDown",
    "EnclaveDown",
    "ErrorRate",
    "CertificateErrors",
    "RelayUnavailable",
    "LayerFails",
    "ConnectionLimitNear",
    "PeerDenied",
    "ReloadFailed",
    "PolicyDiffers",
    "Lag",
    "DescriptorsNear",
    "MemoryNear",
    "LogLinesDropped",
    "EnclaveRestarting",
    "AttestedCertificateOld",
    "NamesFail",
    "CredentialsUnavailable",
    "CredentialsRefused",
    "WorkerDown",
]


def metrics_of_the_guide() -> set[str]:
    """Every metric, as the guide has them; `test_docs_operations` compares that with the code."""
    table = GUIDE.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    rows = re.findall(r"\n\| (`[^|]+) \|", table)
    names = {f"nitroproxy_{name}" for row in rows for name in re.findall(r"`(\w+)`", row)}
    histograms = {name for name in names if name.endswith(("_seconds", "_bytes"))}
    process = ("cpu_seconds_total", "open_fds", "max_fds", "resident_memory_bytes", "start_time_seconds")
    return names | {f"{name}_bucket" for name in histograms} | {f"process_{name}" for name in process} | {"up"}


def metrics_in(query: str) -> set[str]:
    """The names of metrics in a query."""
    return set(re.findall(r"\b((?:nitroproxy|process)_\w+|up)(?=[{\[]| [<>=])", query))


class AlertTests(SynchronousTestCase):
    """The alert rules."""

    def test_all(self) -> None:
        """Every alert that is wanted is there, with a runbook of its own in the guide."""
        names = re.findall(r"- alert: Nitroproxy(\w+)", ALERTS)
        self.assertEqual(sorted(names), sorted(WANTED))
        section = GUIDE.partition("\n## Alerts\n")[2].partition("\n## ")[0]
        self.assertEqual(re.findall(r"\n\| `Nitroproxy(\w+)` \|", section), names)
        self.assertEqual(re.findall(r"runbook: docs/operations.md, Nitroproxy(\w+)", ALERTS), names)

    def test_metrics(self) -> None:
        """They ask for metrics that exist."""
        names = metrics_in(ALERTS)
        self.assertGreater(len(names), 12)
        self.assertEqual(names - metrics_of_the_guide(), set())

    def test_cases(self) -> None:
        """Each has a case in which it fires and one in which it does not."""
        cases = (ROOT / "tests/monitoring/alerts.test.yml").read_text("utf-8")
        fires: set[str] = set()
        silent: set[str] = set()
        for name, rest in re.findall(r"alertname: Nitroproxy(\w+)\n\s+eval_time: \w+\n\s+exp_alerts:(.*)\n", cases):
            (silent if rest.strip() == "[]" else fires).add(name)
        self.assertEqual((fires, silent), (set(WANTED), set(WANTED)))

    def test_promtool(self) -> None:
        """Prometheus's own tool finds nothing wrong with the rules, and the cases come out as they should."""
        if shutil.which("promtool") is None:
            raise SkipTest("promtool is not installed: ./scripts/dev.sh test installs the Debian package prometheus")
        for arguments in (
            ("check", "rules", "etc/monitoring/alerts.yml"),
            ("test", "rules", "tests/monitoring/alerts.test.yml"),
        ):
            done = subprocess.run(["promtool", *arguments], check=False, capture_output=True, text=True, cwd=ROOT)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class DashboardTests(SynchronousTestCase):
    """The dashboard."""

    def setUp(self) -> None:
        self.dashboard: Any = json.loads((ROOT / "etc/monitoring/dashboard.json").read_text("utf-8"))

    def test_metrics(self) -> None:
        """Every panel has a title, a query, and asks for metrics that exist, of the hosts that are chosen."""
        for panel in self.dashboard["panels"]:
            self.assertTrue(panel["title"])
            self.assertTrue(panel["targets"], panel["title"])
            for target in panel["targets"]:
                names = metrics_in(target["expr"])
                self.assertTrue(names, target["expr"])
                self.assertEqual(names - metrics_of_the_guide(), set(), target["expr"])
                self.assertEqual(
                    target["expr"].count("{"), target["expr"].count('instance=~"$instance"'), target["expr"]
                )

    def test_layout(self) -> None:
        """Panels do not overlap, and fit into Grafana's 24 columns."""
        taken: dict[tuple[int, int], str] = {}
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24)
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    self.assertNotIn((x, y), taken, panel["title"])
                    taken[x, y] = panel["title"]
        self.assertEqual(len({panel["id"] for panel in self.dashboard["panels"]}), len(self.dashboard["panels"]))


class CloudWatchTests(SynchronousTestCase):
    """The CloudWatch agent's configuration, and the alarms on what it sends."""

    def setUp(self) -> None:
        self.agent: Any = json.loads((ROOT / "etc/aws/cloudwatch-agent.json").read_text("utf-8"))
        self.processor = self.agent["logs"]["metrics_collected"]["prometheus"]["emf_processor"]

    def test_units(self) -> None:
        """Each metric with a unit exists, and so does the unit; each is sent."""
        units: dict[str, str] = self.processor["metric_unit"]
        self.assertEqual(set(units) - metrics_of_the_guide(), set())
        self.assertEqual(set(units.values()), UNITS)
        selectors = [one for each in self.processor["metric_declaration"] for one in each["metric_selectors"]]
        for name in units:
            self.assertEqual(len([one for one in selectors if re.search(one, name)]), 1, name)
        for selector in selectors:
            self.assertTrue([name for name in units if re.search(selector, name)], f"{selector}: no unit")

    def test_dimensions(self) -> None:
        """Each dimension is a label that the metric has, by the guide."""
        labels_of: dict[str, set[str]] = {}
        table = GUIDE.partition("\n## Metrics\n")[2].partition("\n## ")[0]
        for names, labels in re.findall(r"\n\| (`[^|]+) \| ([^|]*) \|", table):
            for name in re.findall(r"`(\w+)`", names):
                labels_of[f"nitroproxy_{name}"] = {"role", *labels.replace(" ", "").split(",")} - {""}
        for declaration in self.processor["metric_declaration"]:
            for name, labels in labels_of.items():
                if any(re.search(selector, name) for selector in declaration["metric_selectors"]):
                    used = {label for dimension in declaration["dimensions"] for label in dimension}
                    self.assertEqual(used - labels - SCRAPE_LABELS, set(), name)

    def test_alarms(self) -> None:
        """Each alarm is on a metric that is sent, with a set of dimensions that it is sent with, and has a runbook."""
        template = (ROOT / "etc/aws/instance.yaml").read_text("utf-8")
        alarms = template.split("Type: AWS::CloudWatch::Alarm")[1:]
        self.assertEqual(len(alarms), 5)
        for alarm in alarms:
            name = re.findall(r"MetricName: (\w+)", alarm)[0]
            dimensions = re.findall(r"Name: (\w+), Value", re.findall(r"Dimensions: (.*)", alarm)[0])
            sent = [
                declaration["dimensions"]
                for declaration in self.processor["metric_declaration"]
                if any(re.search(selector, name) for selector in declaration["metric_selectors"])
            ]
            self.assertIn(sorted(dimensions), [sorted(each) for each in sent[0]], name)
            self.assertIn(re.findall(r"operations.md, Nitroproxy(\w+)\)", alarm)[0], WANTED)
            self.assertIn("TreatMissingData: " + ("notBreaching" if "_total" in name else "breaching"), alarm)
        for group in re.findall(r"LogGroupName: (\S+),", template):
            self.assertIn(f'"log_group_name": "{group}"', json.dumps(self.agent))

    def test_units_of_systemd(self) -> None:
        """The units whose journal is sent are ours, or the allocator's."""
        units = {
            unit for one in self.agent["logs"]["logs_collected"]["journald"]["collect_list"] for unit in one["units"]
        }
        ours = {path.name for path in (ROOT / "systemd").iterdir()}
        self.assertEqual(units - ours, {"nitro-enclaves-allocator.service"})
