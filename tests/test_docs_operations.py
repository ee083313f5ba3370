"""The operations guide names every error, event, metric and reloadable key, and no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.daemon.reload import RELOADABLE
from nitroproxy.errors import Kind

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs/operations.md").read_text("utf-8")


def section(title: str) -> str:
    """The section with that heading."""
    return GUIDE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> Iterator[list[str]]:
    """The rows of the section's first table, by cell."""
    for line in section(title).splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def calls() -> Iterator[ast.Call]:
    """Every call in the package."""
    for path in (ROOT / "nitroproxy").rglob("*.py"):
        yield from (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))


class GuideTests(SynchronousTestCase):
    """Tables compared with the code."""

    def test_errors(self) -> None:
        """Every error, with its status."""
        told: dict[str, str] = {}
        for names, statuses, *_ in rows("Errors a client sees"):
            told.update(zip(re.findall(r"`(\w+)`", names), statuses.split(", ") * 2, strict=False))
        self.assertEqual(told, {kind.public_name: str(kind.status) for kind in Kind})

    def test_events(self) -> None:
        """Every event that is logged under a name."""
        told = {name for names, *_ in rows("Logs") for name in re.findall(r"`(\w+)`", names)}
        logged = {
            keyword.value.value
            for call in calls()
            for keyword in call.keywords
            if keyword.arg == "event" and isinstance(keyword.value, ast.Constant)
        }
        logged |= {
            call.args[1].value
            for call in calls()
            if isinstance(call.func, ast.Attribute) and call.func.attr == "emit"
            if len(call.args) > 1 and isinstance(call.args[1], ast.Constant)
        }
        self.assertEqual(told - {"log", "log_lines_dropped"}, logged)

    def test_every_event_has_a_name(self) -> None:
        """Every event of ours has a name."""
        for path in (ROOT / "nitroproxy").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id == "_log"
                ):
                    self.assertIn("event", [keyword.arg for keyword in node.keywords], f"{path}:{node.lineno}")

    def test_metrics(self) -> None:
        """Every metric."""
        told = {name for names, *_ in rows("Metrics") for name in re.findall(r"`(\w+)`", names)}
        source = "".join(path.read_text("utf-8") for path in (ROOT / "nitroproxy").rglob("*.py"))
        made = set(re.findall(r'(?:_counter|one_counter)\(\s*"(\w+)"', source))
        made |= set(re.findall(r'CounterMetricFamily\(\s*"nitroproxy_(\w+)"', source))
        counters = {f"{name}_total" for name in made}
        others = set(re.findall(r'_gauge\(\s*"(\w+)"', source))
        others |= set(re.findall(r'(?:Gauge|Histogram)MetricFamily\(\s*"nitroproxy_(\w+)"', source))
        others |= set(re.findall(r'\("(\w+)", "[A-Z][^"]*\.", self\._\w+\)', source))
        others |= {"config_last_reload_successful", "config_last_reload_success_timestamp_seconds"}
        self.assertEqual(told, counters | others)

    def test_reload(self) -> None:
        """Every key that SIGHUP changes."""
        text = section("Signals")
        for name in RELOADABLE - {"egress.allow", "egress.deny", "egress.allow_addresses"}:
            self.assertIn(f"`{name.removeprefix('host_proxy.') if name.endswith('retry_delay') else name}`", text)


class TranslationTests(SynchronousTestCase):
    """The guide in Chinese follows the English one."""

    def test_tables(self) -> None:
        """It has no row that the English one has not, and most of those that it has."""
        english, chinese = (
            [re.findall(r"`([^`]+)`", line.split(" | ")[0]) for line in text.splitlines() if line.startswith("| `")]
            for text in (GUIDE, (ROOT / "docs/operations.zh-CN.md").read_text("utf-8"))
        )
        self.assertEqual([row for row in chinese if row not in english], [])
        self.assertGreater(len(chinese), 0.9 * len(english))
