"""The composition root of a supervisor, with workers in memory."""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.load import Configuration
from nitroproxy.config.schema import Settings
from nitroproxy.daemon import service as daemon_module
from nitroproxy.telemetry.health import Check
from nitroproxy.workers import supervisor_daemon
from nitroproxy.workers.supervisor_daemon import SupervisorDaemon
from tests.pair import FakeSpawn
from tests.roles import FakeReactor, FakeRole, configured


class SupervisorDaemonTests(SynchronousTestCase):
    """Two workers."""

    def setUp(self) -> None:
        self.path, options = configured(self)
        self.role = FakeRole()
        self.reactor: Any = FakeReactor()
        self.spawn = FakeSpawn(self.reactor)
        self.given: list[Any] = []
        self.patch(supervisor_daemon, "Spawner", self.spawner)
        servers = self.role.servers(self.reactor, Settings())
        root = SupervisorDaemon(self.role, self.reactor, options, servers, 1)
        self.addCleanup(os.close, root._counts.descriptor)
        self.daemon = root.daemon
        self.statuses: list[int] = []
        self.patch(daemon_module, "_end_process_with", self.statuses.append)

    def spawner(self, *given: Any) -> FakeSpawn:
        self.given = list(given)
        return self.spawn

    def start(self) -> None:
        self.daemon.privilegedStartService()
        self.daemon.startService()
        self.reactor.run()
        self.spawn.carry()

    def in_force(self, number: int) -> Settings:
        """What a worker was given at its start."""
        configuration = msgspec.json.decode(self.spawn.workers[number].start.configuration, type=Configuration)
        return configuration.settings

    def reload(self, content: object) -> Any:
        self.path.write_text(json.dumps(content))
        reloading: Any = self.daemon.reload()
        self.assertIsInstance(reloading, Deferred)
        self.spawn.carry()
        return self.successResultOf(reloading)

    def gauge(self) -> float:
        for family in self.role.made[0].instruments.metrics.collect():
            if family.name == "nitroproxy_config_last_reload_successful":
                [sample] = family.samples
                self.assertEqual(sample.labels, {"role": "host", "worker": "supervisor"})
                return sample.value
        return -1

    def test_start(self) -> None:
        """It holds the sockets without accepting, and gives each worker their names and the configuration."""
        self.start()
        self.assertEqual([endpoint.port.reading for endpoint in self.role.endpoints], [False, False])
        start = self.spawn.workers[2].start
        self.assertEqual((start.count, start.places), (2, ["first", "second"]))
        self.assertEqual(self.in_force(2), Settings())
        self.assertNotIn("serving", self.role.parts, "it does not serve itself")

    def test_ask_once(self) -> None:
        """A worker can ask what the daemon has once."""
        self.start()
        asking = self.spawn.workers[2].mine.ask("double", 21)
        self.spawn.carry()
        self.assertEqual(self.successResultOf(asking), 42)

    def test_shared(self) -> None:
        """What the daemon has once gives each worker something at its start, and what has changed to all of them."""
        self.start()
        self.assertEqual([worker.start.shared for worker in self.spawn.workers.values()], [b"first"] * 2)
        once = self.role.parts["once"]
        once.shared = b"second"
        assert once.tell is not None
        telling = once.tell(b"second")
        self.spawn.carry()
        self.successResultOf(telling)
        self.assertEqual([worker.taken for worker in self.spawn.workers.values()], [[b"second"]] * 2)
        self.spawn.die(1)
        self.reactor.advance(0.2)
        self.assertEqual(self.spawn.workers[1].start.shared, b"second")

    def test_rest(self) -> None:
        """What the daemon has once can ask what serves in each worker, all processes, and for the configuration."""
        self.start()
        rest = self.role.rest
        asking = Deferred.fromCoroutine(rest.ask_serving("name"))
        self.spawn.carry()
        self.assertEqual(self.successResultOf(asking), ["worker 1", "worker 2"])
        assert rest.whole is not None
        asking = Deferred.fromCoroutine(rest.whole.check())  # type: ignore[arg-type]
        self.spawn.carry()
        self.assertEqual(self.successResultOf(asking), Check("pass", "2 answer"))
        self.assertEqual(rest.configuration().settings, Settings())

    def test_inherited(self) -> None:
        """The workers inherit the memory of their shares and then the sockets, by the number of the place."""
        self.start()
        *_, plugin, output, inherited = self.given
        self.assertEqual((plugin, output), ("nitroproxy-test", 1))
        memory, *sockets = inherited()
        self.assertEqual(os.fstat(memory).st_size, 2 * 2 * 8)
        self.assertEqual(sockets, [0, 0])

    def test_reload(self) -> None:
        """A good file is in force in what the supervisor has, in every worker, and in those that start later."""
        self.start()
        self.assertTrue(self.reload({"limits": {"connections": 5}}))
        self.assertEqual(self.role.done, ["once has 5"])
        for worker in self.spawn.workers.values():
            [data] = worker.reloaded
            self.assertEqual(msgspec.json.decode(data, type=Configuration).settings.limits.connections, 5)
        self.spawn.die(1)
        self.reactor.advance(0.2)
        self.assertEqual(self.in_force(1).limits.connections, 5)
        self.assertEqual(self.gauge(), 1)

    def test_broken_file(self) -> None:
        """A broken one reaches no worker."""
        self.start()
        self.assertFalse(self.reload({"limits": {"connections": 0}}))
        self.role.parts["once"].refuses = True
        self.assertFalse(self.reload({"limits": {"connections": 7}}))
        self.assertEqual([worker.reloaded for worker in self.spawn.workers.values()], [[], []])
        self.assertEqual((self.in_force(1), self.gauge()), (Settings(), 0))

    def test_refused_by_a_worker(self) -> None:
        """What a worker cannot use, although the supervisor could, is in force nowhere: the reload has failed, in the
        metric too (K6)."""
        self.start()
        self.spawn.workers[2].refuses = "tls.ca_file: holds no certificate"
        with capturedLogs() as events:
            self.assertFalse(self.reload({"limits": {"connections": 5}}))
        [said] = [formatEvent(event) for event in events if event.get("event") == "reload_failed"]
        self.assertEqual(said, "not reloaded, the old configuration stays: worker 2: tls.ca_file: holds no certificate")
        self.assertEqual((self.role.done, self.gauge()), ([], 0))
        self.spawn.workers[2].refuses = ""
        self.assertTrue(self.reload({"limits": {"connections": 6}}))
        self.assertEqual((self.role.done, self.gauge()), (["once has 6"], 1))

    def test_watchdog(self) -> None:
        """Without a worker the watchdog gets no keep-alive (K6); with one it does, whatever the other does."""
        pings: list[None] = []
        notifier: Any = self.daemon._notifier
        self.patch(notifier, "ping", lambda: pings.append(None))
        self.start()
        self.reactor.advance(1.0)
        self.spawn.carry()
        self.assertEqual(len(pings), 1)
        self.spawn.errors = [OSError(24, "Too many open files")] * 99
        self.spawn.die(1)
        self.reactor.advance(1.0)
        self.spawn.carry()
        self.assertEqual(len(pings), 2)
        self.spawn.die(2)
        for _ in range(9):
            self.reactor.advance(1.0)
        self.assertEqual(len(pings), 2)

    def test_give_up(self) -> None:
        """A worker that cannot be kept running ends the daemon with status 1 (K6)."""
        self.start()
        self.spawn.errors = [OSError(24, "Too many open files")] * 99
        self.spawn.die(1)
        for _ in range(60):
            self.reactor.advance(1.0)
        self.assertEqual((self.statuses, self.reactor.hasStopped), ([1], True))

    def test_end(self) -> None:
        """The places drain in the workers, by stage; then the workers end, and last the supervisor's own."""
        self.start()
        stopping: Any = self.daemon.stopService()
        for _ in range(3):
            self.spawn.carry()
        for worker in self.spawn.workers.values():
            self.assertEqual([place.done for place in worker.places], [[30.0], [30.0]])
            self.assertTrue(worker.ended)
        self.assertEqual(self.role.done, [])
        self.assertNoResult(stopping)
        for number in (1, 2):
            self.spawn.die(number, "ended with status 0")
        self.assertTrue(self.successResultOf(stopping))
        self.assertEqual(self.role.done, ["once ends", "process ends"])
