"""SIGHUP: all of the new configuration or nothing of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config import Configuration, load
from nitroproxy.reload import RELOADABLE, Reloader, Unloadable
from nitroproxy.telemetry.logs import EventLog


class ReloadTests(SynchronousTestCase):
    """A file that changes."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.write({})
        self.in_force: list[Configuration] = []
        self.refusal: str | None = None
        self.now = 100.0
        self.reload = Reloader(self.load(), self.load, self.prepare, lambda: self.now)
        self.events: list[Mapping[str, Any]] = []
        observer = EventLog("INFO", [self.events.append])
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def write(self, content: object) -> None:
        self.path.write_text(content if isinstance(content, str) else json.dumps(content))

    def load(self) -> Configuration:
        return load(str(self.path), environ={})

    def prepare(self, configuration: Configuration) -> Callable[[], object]:
        if self.refusal is not None:
            raise Unloadable(self.refusal)
        return lambda: self.in_force.append(configuration)

    def told(self) -> list[tuple[str, str]]:
        return [(event["event"], event["message"]) for event in self.events]

    def gauges(self) -> dict[str, float]:
        return {family.name: family.samples[0].value for family in self.reload.collect()}

    def test_good(self) -> None:
        """A good file is put in force."""
        self.write({"egress": {"deny": ["bad.example:*"]}})
        self.now = 200.0
        self.assertTrue(self.reload())
        self.assertEqual(self.in_force[0].settings.egress.deny, ("bad.example:*",))
        self.assertEqual(self.told(), [("reloaded", "reloaded")])
        self.assertEqual(self.gauges()["nitroproxy_config_last_reload_success_timestamp_seconds"], 200.0)

    def test_broken(self) -> None:
        """A broken file changes nothing, and each thing that is wrong with it is said."""
        for content in ("{", {"egress": {"allow": ["x"]}, "limits": {"connections": 0}}):
            self.write(content)
            self.assertFalse(self.reload())
        self.assertEqual(self.in_force, [])
        self.assertEqual([name for name, _ in self.told()], ["reload_failed"] * 3)
        self.assertIn("egress.allow", self.told()[1][1])
        self.assertEqual(self.gauges()["nitroproxy_config_last_reload_successful"], 0)
        self.write({})
        self.assertTrue(self.reload())
        self.assertEqual(self.gauges()["nitroproxy_config_last_reload_successful"], 1)

    def test_unloadable(self) -> None:
        """A part that cannot take it stops all of it."""
        self.refusal = "tls.ca_file: /x: No such file"
        self.write({"logging": {"level": "DEBUG"}})
        self.assertFalse(self.reload())
        self.assertEqual(self.in_force, [])
        self.assertIn("/x: No such file", self.told()[0][1])

    def test_needs_restart(self) -> None:
        """What cannot change without a restart is named; the rest is in force."""
        self.write({"host_proxy": {"port": 9090}, "transport": {"parent_cid": 2}, "logging": {"level": "WARN"}})
        self.assertTrue(self.reload())
        [(name, message)] = self.told()
        self.assertEqual(name, "reload_partial")
        self.assertIn("transport.parent_cid, host_proxy.port", message)
        self.assertNotIn("logging.level", message)

    def test_keys(self) -> None:
        """The keys that are said to be reloadable are keys."""
        keys = {key for key, _, _ in self.load().rows()}
        for name in RELOADABLE:
            self.assertTrue(name in keys or any(key.startswith(f"{name}.") for key in keys), name)
