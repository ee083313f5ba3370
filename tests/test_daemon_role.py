"""What the composition roots share."""

from __future__ import annotations

import resource
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.schema import Logging, Settings
from nitroproxy.config.traffic import Limits
from nitroproxy.daemon import role as role_module
from nitroproxy.daemon.reload import Unloadable
from nitroproxy.daemon.role import Process, Server, places_of, prepare_all
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.telemetry.instruments import Instruments
from tests.wire import OneHop


class FakePart:
    """A part that records, or refuses."""

    def __init__(self, done: list[str], name: str, refuses: bool = False) -> None:
        self._done = done
        self._name = name
        self._refuses = refuses

    def prepare(self, settings: Settings) -> Callable[[], None]:
        """See `Part`."""
        if self._refuses:
            raise Unloadable(self._name)
        self._done.append(f"prepare {self._name}")
        return lambda: self._done.append(f"commit {self._name}")


class FakeServing(FakePart):
    """What serves."""

    at_end: Sequence[Callable[[], object]] = ()
    answerers: Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]] = MappingProxyType({})

    def __init__(self, count: int) -> None:
        super().__init__([], "serving")
        hop = OneHop()
        self.factories = [
            DownstreamFactory(f"hop-{number}", hop, hop.factory.settings, hop.deadlines) for number in range(count)
        ]

    def take(self, shared: bytes) -> None:
        """See `Serving`."""

    def close_idle(self) -> None:
        """See `Serving`."""


class PrepareTests(SynchronousTestCase):
    """All or nothing."""

    def test_all(self) -> None:
        """Every part is prepared before any is committed."""
        done: list[str] = []
        prepare_all([FakePart(done, "a"), FakePart(done, "b")], Settings())()
        self.assertEqual(done, ["prepare a", "prepare b", "commit a", "commit b"])

    def test_nothing(self) -> None:
        """When one refuses, none is committed."""
        done: list[str] = []
        parts = [FakePart(done, "a"), FakePart(done, "b", refuses=True)]
        self.assertRaises(Unloadable, prepare_all, parts, Settings())
        self.assertEqual(done, ["prepare a"])


class PlacesTests(SynchronousTestCase):
    """Servers and factories."""

    def test_order(self) -> None:
        """Each server, stage by stage, gets the next factory."""
        endpoint: Any = None
        servers = [[Server(endpoint, "a", "h")], [Server(endpoint, "b", "h"), Server(endpoint, "c", "h")]]
        serving = FakeServing(3)
        places = places_of(servers, serving)
        self.assertEqual([[place.name for place in stage] for stage in places], [["a"], ["b", "c"]])
        serving.factories[2].connections.add(object())  # type: ignore[arg-type]  # counted, not looked at
        self.assertEqual([[place.connections for place in stage] for stage in places], [[0], [0, 1]])


class ProcessTests(SynchronousTestCase):
    """What every process has."""

    def setUp(self) -> None:
        self.checked: list[tuple[int, int]] = []
        self.patch(role_module, "raise_limit", lambda: 1000)
        self.patch(role_module, "check_limit", lambda limit, connections: self.checked.append((limit, connections)))

    def process(self, *, limits_descriptors: bool) -> Process:
        reactor = MemoryReactorClock()
        self.instruments = Instruments(reactor, "host", "1", level="INFO", form="text", access=False, output=1)
        return Process(
            reactor,
            Settings(),
            Deadlines(reactor),
            self.instruments,
            limits_descriptors=limits_descriptors,
            at_end=[self.setUp],
        )

    def test_descriptors(self) -> None:
        """The first process looks at the limit on descriptors at the start, and at each reload; workers inherit it."""
        process = self.process(limits_descriptors=True)
        self.assertEqual(self.checked, [(1000, 4000)])
        process.prepare(Settings(limits=Limits(connections=7)))()
        self.assertEqual(self.checked, [(1000, 4000), (1000, 7)])
        self.process(limits_descriptors=False)
        self.assertEqual(len(self.checked), 2)

    def test_level(self) -> None:
        """A reload puts the level of the log in force, and only when it is committed."""
        process = self.process(limits_descriptors=False)
        levels: list[str] = []
        self.patch(self.instruments.log, "set_level", levels.append)
        commit = process.prepare(msgspec.structs.replace(Settings(), logging=Logging(level="ERROR")))
        self.assertEqual(levels, [])
        commit()
        self.assertEqual(levels, ["ERROR"])

    def test_at_end(self) -> None:
        """The deadlines stop last: what ends before may still need them."""
        process = self.process(limits_descriptors=False)
        self.assertEqual(process.at_end, [self.setUp, process.deadlines.stop])


class LimitTests(SynchronousTestCase):
    """The real calls."""

    def test_kept(self) -> None:
        """Making a process never lowers the limit."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        reactor = MemoryReactorClock()
        instruments = Instruments(reactor, "host", "1", level="INFO", form="text", access=False, output=1)
        Process(reactor, Settings(), Deadlines(reactor), instruments, limits_descriptors=True)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.assertGreaterEqual(soft, before[0])
        self.assertEqual(hard, before[1])
