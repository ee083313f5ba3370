"""A daemon of nothing much, for the composition roots: its parts record what is done with them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from nitroproxy.config.load import Configuration
from nitroproxy.config.options import DaemonOptions
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.place import Place
from nitroproxy.daemon.reload import Unloadable
from nitroproxy.daemon.role import AllProcesses, AskOnce, Commit, Process, Rest, Server, Stages
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.proxy.settings import ListenerSettings
from nitroproxy.telemetry.instruments import Instruments
from tests.pair import FakePlace
from tests.wire import OneHop


class FakePort:
    """A listening port whose socket is /dev/null."""

    connected = True
    family = socket.AF_UNIX

    def __init__(self) -> None:
        self.reading = True
        self.numberAccepts = 1
        self.transport: Any = None
        #: Stands for the socket as well; what a listener puts in its place is kept.
        self.socket: Any = self

    def fileno(self) -> int:
        """Some descriptor."""
        return 0

    def stopReading(self) -> None:
        """Accept no more."""
        self.reading = False

    def doRead(self) -> None:
        """Accept."""

    def connectionLost(self, reason: object) -> None:
        """Close."""
        self.connected = False

    def shutdown(self, how: int) -> None:
        """Let nobody in any more."""

    def detach(self) -> int:
        """A descriptor to close."""
        return os.open(os.devnull, os.O_RDONLY)


class RetiringPool:
    """What stands for a pool that a reload replaces. The compiled pool cannot be patched."""

    def __init__(self) -> None:
        self.retired = 0

    def retire(self) -> None:
        """Count."""
        self.retired += 1

    @classmethod
    def of(cls, case: SynchronousTestCase, owner: Any) -> RetiringPool:
        """One in the place of the pool that *owner* has built."""
        pool = cls()
        case.patch(owner, "_built", replace(owner._built, pool=pool))
        return pool


@implementer(IStreamServerEndpoint)
class FakeEndpoint:
    """Listens at once."""

    def __init__(self) -> None:
        self.port = FakePort()

    def listen(self, protocolFactory: object) -> Any:
        """Listen."""
        return succeed(self.port)


class FakeParts:
    """What serves, and what there is once: both record what is done.

    :ivar refuses: it cannot use a configuration.
    """

    def __init__(self, name: str, done: list[str], factories: Sequence[DownstreamFactory]) -> None:
        self.name = name
        self.done = done
        self.refuses = False
        self.factories = factories
        self.places: Sequence[Place] = [FakePlace()] if name == "once" else []
        self.at_end: Sequence[Callable[[], object]] = [lambda: done.append(f"{name} ends")]
        self.shared = b"first"
        self.taken: list[bytes] = []
        self.tell: Callable[[bytes], Deferred[Any]] | None = None
        self.answerers: Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]] = {
            "double": self._double,
            "name": self._tell_name,
        }

    async def _tell_name(self, about: Any) -> Any:
        return self.name

    async def _double(self, about: Any) -> Any:
        return about * 2

    def close_idle(self) -> None:
        """See `Serving`."""
        self.done.append(f"{self.name} closes what is idle")

    def take(self, shared: bytes) -> None:
        """See `Serving`."""
        self.taken.append(shared)

    def watch(self, tell: Callable[[bytes], Deferred[Any]]) -> None:
        """See `Once`."""
        self.tell = tell

    def prepare(self, settings: Settings) -> Commit:
        """See `Part`."""
        if self.refuses:
            raise Unloadable(f"{self.name} refuses")
        return lambda: self.done.append(f"{self.name} has {settings.limits.connections}")


def configured(case: SynchronousTestCase) -> tuple[Path, DaemonOptions]:
    """An empty configuration file, and a daemon's options that name it."""
    path = Path(case.mktemp())
    path.write_text("{}")
    options = DaemonOptions({})
    options.parseOptions(["--config", str(path)])
    return path, options


def ask_nothing(what: str, about: Any, timeout: float = 0.7) -> Deferred[Any]:
    """Stands for `nitroproxy.daemon.role.AskOnce` when the process that has it does not answer."""
    return succeed(None)


def no_rest(whole: AllProcesses | None = None) -> Rest:
    """The rest of a daemon with the default configuration, in which nothing serves."""

    async def ask_serving(what: str) -> list[Any]:
        return []

    return Rest(whole, ask_serving, lambda: Configuration(Settings(), False, None, {}))


class FakeRole:
    """A daemon with two servers in two stages; see `Role`."""

    name = "nitroproxy-test"

    def __init__(self) -> None:
        self.done: list[str] = []
        self.count = 2
        self.endpoints = [FakeEndpoint(), FakeEndpoint()]
        self.parts: dict[str, FakeParts] = {}
        self.whole: AllProcesses | None = None
        self.rest = no_rest()
        self.made: list[Process] = []

    def processes(self, settings: Settings) -> int:
        """See `Role`."""
        return self.count

    def drain_delay(self, settings: Settings) -> float:
        """See `Role`."""
        return settings.host_proxy.drain_delay

    def check(self, settings: Settings) -> None:
        """See `Role`."""
        self.done.append("check")

    def process(self, reactor: Any, settings: Settings, output: int, worker: int | None) -> Process:
        """See `Role`."""
        instruments = Instruments(
            reactor, "host", "1", level="INFO", form="text", access=False, output=output, worker=worker
        )
        at_end = [lambda: self.done.append("process ends")]
        made = Process(reactor, settings, Deadlines(reactor), instruments, limits_descriptors=False, at_end=at_end)
        self.made.append(made)
        return made

    def servers(self, reactor: Any, settings: Settings) -> Stages:
        """See `Role`."""
        first, second = self.endpoints
        return [[Server(first, "first", "hop-0")], [Server(second, "second", "hop-1")]]

    def serving(self, process: Process, settings: Settings, whole: AllProcesses | None, ask_once: AskOnce) -> FakeParts:
        """See `Role`."""
        self.whole = whole
        self.ask_once = ask_once
        hop = OneHop()
        return self._part(
            "serving", [DownstreamFactory(f"hop-{i}", hop, ListenerSettings(), hop.deadlines) for i in (0, 1)]
        )

    def once(self, process: Process, settings: Settings, rest: Rest) -> FakeParts:
        """See `Role`."""
        self.rest = rest
        return self._part("once", [])

    def _part(self, name: str, factories: Sequence[DownstreamFactory]) -> FakeParts:
        self.parts[name] = FakeParts(name, self.done, factories)
        return self.parts[name]


class FakeReactor(MemoryReactorClock):
    """Runs nothing, and keeps the connection that is adopted."""

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        """Keep its protocol."""
        self.adopted = factory.buildProtocol(None)
