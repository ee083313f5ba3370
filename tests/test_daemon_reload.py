"""SIGHUP: all of the new configuration or nothing of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.ends import HostProxy
from nitroproxy.config.load import Configuration, load
from nitroproxy.config.schema import Logging, Settings
from nitroproxy.daemon.reload import RELOADABLE, Reloader, Unloadable
from nitroproxy.telemetry.logs import EventLog


class ReloadTests(SynchronousTestCase):
    """A file that changes."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.write({})
        self.in_force: list[Settings] = []
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

    def prepare(self, settings: Settings) -> Callable[[], object]:
        if self.refusal is not None:
            raise Unloadable(self.refusal)
        return lambda: self.in_force.append(settings)

    def told(self) -> list[tuple[str, str]]:
        return [(event["event"], event["message"]) for event in self.events]

    def gauges(self) -> dict[str, float]:
        return {family.name: family.samples[0].value for family in self.reload.collect()}

    def test_good(self) -> None:
        """A good file is put in force."""
        self.write({"egress": {"deny": ["bad.example:*"]}})
        self.now = 200.0
        self.assertTrue(self.reload())
        self.assertEqual(self.in_force[0].egress.deny, ("bad.example:*",))
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

    def test_obstacle(self) -> None:
        """What would be wrong is said, and nothing is put in force."""
        self.assertEqual(self.reload.obstacle(), "")
        self.write({"limits": {"connections": 0}})
        self.assertIn("limits.connections", self.reload.obstacle())
        self.write({})
        self.refusal = "tls.ca_file: holds no certificate"
        self.assertEqual(self.reload.obstacle(), self.refusal)
        self.assertEqual((self.in_force, self.told()), ([], []))
        self.assertEqual(self.gauges()["nitroproxy_config_last_reload_successful"], 1)

    def test_obstacle_is_a_defect(self) -> None:
        """An exception that nobody expects is logged, and an obstacle: a new daemon would raise it too."""

        def fail(settings: Settings) -> Callable[[], object]:
            raise ZeroDivisionError("so")

        self.patch(self.reload, "_prepare", fail)
        self.assertEqual(self.reload.obstacle(), "ZeroDivisionError: so")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_prepared(self) -> None:
        """What is prepared is in force when it is committed, and not before."""
        self.write({"limits": {"connections": 5}})
        prepared = self.reload.prepare()
        self.assertEqual((self.in_force, self.told()), ([], []))
        self.assertNotEqual(prepared.configuration, self.reload.configuration)
        prepared.commit()
        self.assertEqual(len(self.in_force), 1)
        self.assertEqual(prepared.configuration, self.reload.configuration)

    def test_needs_restart(self) -> None:
        """What cannot change without a restart is named and stays as it was; the rest is in force."""
        self.write({"host_proxy": {"port": 9090}, "transport": {"parent_cid": 2}, "logging": {"level": "WARN"}})
        self.assertTrue(self.reload())
        [(name, message)] = self.told()
        self.assertEqual(name, "reload_partial")
        self.assertIn("transport.parent_cid, host_proxy.port", message)
        self.assertNotIn("logging.level", message)
        [settings] = self.in_force
        self.assertEqual((settings.host_proxy, settings.transport), (Settings().host_proxy, Settings().transport))
        self.assertEqual(settings.logging.level, "WARN")

    def test_needs_restart_still(self) -> None:
        """It is named again by each reload until the file agrees with what is in force, and then no more."""
        self.write({"enclave": {"port": 6000}})
        self.assertTrue(self.reload() and self.reload())
        self.assertEqual([name for name, _ in self.told()], ["reload_partial"] * 2)
        self.write({})
        self.assertTrue(self.reload())
        self.assertEqual(self.told()[2:], [("reloaded", "reloaded")])

    def test_every_key(self) -> None:
        """Of all keys, whichever changes, those in force are what can change of the new ones and the old rest."""
        changed = {
            "transport": {"kind": "unix", "directory": "/x", "parent_cid": 2},
            "enclave": {"cid": 20, "port": 6000, "proxy_interface": "127.0.0.2", "proxy_port": 9},
            "host_proxy": {"interface": "127.0.0.2", "port": 9, "max_retries": 1, "retry_delay": 0.5},
            "egress": {"port": 6001, "allow": ["*:1"], "deny": ["*:2"], "allow_addresses": ["10.0.0.0/8"]},
            "tls": {"min_version": "TLSv1.2", "ca_file": "/x", "allow_plaintext": True},
            "limits": {"connections": 1, "response_timeout": 2.0},
            "logging": {"level": "WARN", "format": "json", "access": False, "port": 6002, "make_traceparent": True},
        }
        self.write(changed)
        self.assertTrue(self.reload())
        old, new = Settings(), self.load().settings
        [settings] = self.in_force
        self.assertEqual(settings.limits, new.limits)
        self.assertEqual((settings.transport, settings.enclave), (old.transport, old.enclave))
        self.assertEqual(settings.host_proxy, HostProxy(max_retries=1, retry_delay=0.5))
        self.assertEqual(settings.egress, msgspec.structs.replace(new.egress, port=old.egress.port))
        self.assertEqual(settings.tls, msgspec.structs.replace(new.tls, min_version=old.tls.min_version))
        self.assertEqual(settings.logging, Logging(level="WARN"))

    def test_keys(self) -> None:
        """The keys that are said to be reloadable are keys."""
        keys = {key for key, _, _ in self.load().rows()}
        for name in RELOADABLE:
            self.assertTrue(name in keys or any(key.startswith(f"{name}.") for key in keys), name)
