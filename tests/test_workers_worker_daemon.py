"""The composition root of a worker, its supervisor in memory."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.load import load
from nitroproxy.config.options import DaemonOptions
from nitroproxy.config.traffic import Limits
from nitroproxy.proxy.trace import ViaName
from nitroproxy.workers import worker_daemon
from nitroproxy.workers.balance import SharedCounts
from nitroproxy.workers.channel import Channel
from nitroproxy.workers.worker import WorkerStart
from nitroproxy.workers.worker_daemon import WorkerDaemon, configuration_of
from tests.pair import Pair
from tests.roles import FakeReactor, FakeRole

KEY = b"0123456789abcdef"


class WorkerDaemonTests(SynchronousTestCase):
    """Worker 2 of 2."""

    def setUp(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        counts = SharedCounts(2, 2)
        self.addCleanup(os.close, counts.descriptor)
        self.patch(worker_daemon, "CHANNEL", theirs.detach())
        self.patch(worker_daemon, "MEMORY", counts.descriptor)
        self.role = FakeRole()
        self.reactor: Any = FakeReactor()
        self.configuration = load(None, environ={}, options=[])
        options = DaemonOptions({})
        options.configuration = self.configuration
        start = WorkerStart(msgspec.json.encode(self.configuration), 2, ["first", "second"], KEY, b"shared")
        self.daemon = WorkerDaemon(self.role, self.reactor, options, 2, start).daemon
        self.asked: list[str] = []
        self.supervisor = Channel(Clock(), {"workers": self.workers, "double": self.double}, lambda: None)
        self.pair = Pair(self.supervisor, self.reactor.adopted)

    async def workers(self, about: Any) -> Any:
        return {"1": True, "2": True}

    async def double(self, about: Any) -> Any:
        return about * 2

    def ask(self, what: str, about: object = None) -> Any:
        answer = self.supervisor.ask(what, about)
        self.pair.carry()
        return self.successResultOf(answer)

    def test_names(self) -> None:
        """Its listeners recognize requests that other workers have forwarded; its samples are labelled."""
        for number, factory in enumerate(self.role.parts["serving"].factories):
            by_another = ViaName(f"hop-{number}", KEY).fresh()
            self.assertTrue(factory.via_name.is_in([b"1.1 " + by_another]))
        families = self.role.made[0].instruments.metrics.collect()
        self.assertEqual({sample.labels["worker"] for family in families for sample in family.samples}, {"2"})

    def test_all_workers(self) -> None:
        """Its pages ask the supervisor."""
        assert self.role.whole is not None
        checking = Deferred.fromCoroutine(self.role.whole.check())
        self.pair.carry()
        self.assertEqual(self.successResultOf(checking).output, "2 answer")

    def test_ask_once(self) -> None:
        """What serves asks the supervisor for what the daemon has once."""
        asking = self.role.ask_once("double", 21)
        self.pair.carry()
        self.assertEqual(self.successResultOf(asking), 42)

    def test_close_idle(self) -> None:
        """What serves closes what is idle when the supervisor asks for that, which its own pages have asked."""
        self.ask("close_idle")
        self.assertEqual(self.role.done, ["serving closes what is idle"])

    def test_shared(self) -> None:
        """What serves is given what the daemon shares before anything is accepted, and again when it has changed."""
        serving = self.role.parts["serving"]
        self.assertEqual(serving.taken, [b"shared"])
        self.ask("take", b"changed")
        self.assertEqual(serving.taken, [b"shared", b"changed"])

    def test_state(self) -> None:
        """It has a place for each socket of the daemon."""
        self.assertEqual(self.ask("state"), {"accepting": [False, False], "connections": [0, 0]})

    def reload(self, connections: int) -> bool:
        settings = msgspec.structs.replace(self.configuration.settings, limits=Limits(connections=connections))
        problem: str = self.ask("prepare", msgspec.json.encode(replace(self.configuration, settings=settings)))
        if problem == "":
            self.ask("commit")
        return not problem

    def test_reload(self) -> None:
        """It puts in force what the supervisor sends, or says that it could not."""
        self.assertTrue(self.reload(5))
        self.assertEqual(self.role.done, ["serving has 5"])
        self.role.parts["serving"].refuses = True
        self.assertFalse(self.reload(6))
        self.assertEqual(self.role.done, ["serving has 5"])

    def test_signals(self) -> None:
        """It leaves signals to the supervisor."""
        self.assertFalse(self.daemon._takes_signals)

    def test_end(self) -> None:
        """When the supervisor tells it to end, it stops, and the channel that is closed then is no alarm."""
        exits: list[int] = []
        self.patch(os, "_exit", exits.append)
        self.ask("end")
        self.assertTrue(self.reactor.hasStopped)
        self.pair.break_off()
        self.assertEqual(exits, [])

    def test_supervisor_gone(self) -> None:
        """Without its supervisor it ends at once: no process is left that would end it."""
        exits: list[int] = []
        self.patch(os, "_exit", exits.append)
        self.pair.break_off()
        self.assertEqual(exits, [1])

    def test_configuration(self) -> None:
        """A configuration travels as JSON; another version's is an error."""
        self.assertEqual(configuration_of(msgspec.json.encode(self.configuration)), self.configuration)
        self.assertRaises(msgspec.DecodeError, configuration_of, b'{"settings": {"unknown": {}}, "sources": {}}')
