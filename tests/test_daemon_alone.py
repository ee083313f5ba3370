"""A daemon that is one process."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.schema import Settings
from nitroproxy.daemon.alone import Alone
from tests.roles import FakeReactor, FakeRole, configured


class AloneTests(SynchronousTestCase):
    """The composition root, with a role that records."""

    def setUp(self) -> None:
        self.path, options = configured(self)
        self.role = FakeRole()
        self.reactor: Any = FakeReactor()
        servers = self.role.servers(self.reactor, Settings())
        self.daemon = Alone(self.role, self.reactor, options, servers, 1).daemon

    def reload(self, content: object) -> Any:
        self.path.write_text(json.dumps(content))
        return self.daemon.reload()

    def gauge(self) -> float:
        [family] = [
            family
            for family in self.role.made[0].instruments.metrics.collect()
            if family.name == "nitroproxy_config_last_reload_successful"
        ]
        [sample] = family.samples
        self.assertEqual(sample.labels, {"role": "host"}, "no label worker in a daemon of one process")
        return sample.value

    def test_reload(self) -> None:
        """A reload reaches every part, or none when one of them refuses, and the metric says which."""
        self.assertTrue(self.reload({"limits": {"connections": 5}}))
        self.assertEqual(self.role.done, ["serving has 5", "once has 5"])
        self.role.parts["once"].refuses = True
        self.assertFalse(self.reload({"limits": {"connections": 6}}))
        self.assertEqual((len(self.role.done), self.gauge()), (2, 0))

    def test_no_other_processes(self) -> None:
        """There are none to ask."""
        self.assertIsNone(self.role.whole)

    def test_ask_once(self) -> None:
        """What serves asks what the daemon has once, which is here."""
        self.assertEqual(self.successResultOf(self.role.ask_once("double", 21)), 42)

    def test_shared(self) -> None:
        """What serves is given what the daemon shares at the start, and when it has changed."""
        once, serving = self.role.parts["once"], self.role.parts["serving"]
        self.assertEqual(serving.taken, [b"first"])
        assert once.tell is not None
        self.successResultOf(once.tell(b"second"))
        self.assertEqual(serving.taken, [b"first", b"second"])

    def test_rest(self) -> None:
        """What there is once can ask what serves, and for the configuration in force, also after a reload."""
        rest = self.role.rest
        self.assertIsNone(rest.whole)
        answers = self.successResultOf(Deferred.fromCoroutine(rest.ask_serving("name")))
        self.assertEqual(answers, ["serving"])
        self.reload({"limits": {"connections": 5}})
        self.assertEqual(rest.configuration().settings.limits.connections, 5)

    def test_end(self) -> None:
        """The servers stop in their order, what the daemon has once after them, and then what served ends, before what
        the process has."""
        self.daemon.privilegedStartService()
        self.daemon.startService()
        self.reactor.run()
        self.assertEqual([len(stage) for stage in self.daemon._stages], [1, 1, 1])
        stopping = self.daemon.stopService()
        self.assertTrue(self.successResultOf(stopping))
        self.assertEqual([endpoint.port.connected for endpoint in self.role.endpoints], [False, False])
        self.assertEqual(self.role.parts["once"].places[0].done, [30.0])  # type: ignore[attr-defined]
        self.assertEqual(self.role.done, ["serving ends", "once ends", "process ends"])
