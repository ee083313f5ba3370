"""What one daemon is apart from how many processes run it: the interfaces between the composition roots, which host and
enclave share, and what each of the two builds.

`nitroproxy.host.components` and `nitroproxy.enclave.components` implement `Role`; `nitroproxy.daemon.alone` runs it as
one process, `nitroproxy.workers.supervisor_daemon` and `nitroproxy.workers.worker_daemon` as several.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from prometheus_client.core import Metric
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint

from nitroproxy.config.load import Configuration
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.descriptors import check_limit, raise_limit
from nitroproxy.daemon.place import ListeningPlace, Place
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.telemetry.health import Check
from nitroproxy.telemetry.instruments import Instruments

#: Puts a configuration that has been prepared in force; cannot fail.
Commit = Callable[[], None]

#: The question that has every process do what `Serving.close_idle` does. Answered by the supervisor, if there is one.
CLOSE_IDLE: Final = "close_idle"

#: Seconds that an answer is waited for where nothing else is said: a page has no more.
ASK: Final = 0.7


class AskOnce(Protocol):
    """Asks what the daemon has once, in whichever process it is."""

    def __call__(self, what: str, about: Any, timeout: float = ASK) -> Deferred[Any]:
        """Ask one of `Once.answerers`.

        :param timeout: seconds for the answer, where another process gives it.
        :returns: fires with the answer, or with None when there is none; never fails.
        """


@dataclass(frozen=True)
class Server:
    """A socket that the daemon listens on.

    :ivar name: what to call it in messages.
    :ivar hop: whose it is, in messages.
    """

    endpoint: IStreamServerEndpoint
    name: str
    hop: str

    @property
    def lent(self) -> bool:
        """The service manager has it too, and goes on listening when the daemon stops."""
        return isinstance(self.endpoint, AdoptedStreamServerEndpoint)


def asked_here(answerers: Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]]) -> AskOnce:
    """Asks *answerers*, which this process has itself."""

    def ask(what: str, about: Any, timeout: float = ASK) -> Deferred[Any]:
        return Deferred.fromCoroutine(answerers[what](about))

    return ask


#: The daemon's servers in the order in which they stop: those of one stage together, and each stage only when the
#: requests of the one before have finished, which may still need the later ones.
Stages = Sequence[Sequence[Server]]


class Part(Protocol):
    """What a reload reaches."""

    def prepare(self, settings: Settings) -> Commit:
        """Build everything that *settings* change and return what puts it in force.

        :raises nitroproxy.daemon.reload.Unloadable: when that is impossible; then nothing has changed.
        """


class Serving(Part, Protocol):
    """What serves clients in one process.

    :ivar factories: one for each server of the daemon, in the order of its stages.
    :ivar answerers: what the part that there is once can ask it, by name. Answers are plain values.
    :ivar at_end: called and waited for, one after the other, when everything has stopped.
    """

    @property
    def answerers(self) -> Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]]: ...
    @property
    def factories(self) -> Sequence[DownstreamFactory]: ...
    @property
    def at_end(self) -> Sequence[Callable[[], object]]: ...
    def close_idle(self) -> None:
        """Close the connections to the next hop, or to destinations, that no request uses."""

    def take(self, shared: bytes) -> None:
        """Use what `Once` shares. Called before anything is accepted, and again with each change."""


class Once(Part, Protocol):
    """What a daemon has once, however many processes it has.

    :ivar places: where it listens besides its `Server`; they stop last.
    :ivar answerers: what the processes that serve can ask it, by name. Arguments and answers are plain values.
    :ivar shared: what it gives to each of these processes; see `Serving.take`.
    :ivar at_end: as `Serving.at_end`; after those.
    """

    @property
    def places(self) -> Sequence[Place]: ...
    @property
    def answerers(self) -> Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]]: ...
    @property
    def shared(self) -> bytes: ...
    @property
    def at_end(self) -> Sequence[Callable[[], object]]: ...

    def watch(self, tell: Callable[[bytes], Deferred[Any]]) -> None:
        """Call *tell* with what is shared when that has changed; its result fires when every process has taken it, and
        never fails."""


class AllProcesses(Protocol):
    """All processes of a daemon that has several, for the pages that one of them serves."""

    async def metrics(self) -> Sequence[Metric]:
        """What all of them count."""

    async def check(self) -> Check:
        """Whether all of them answer."""


@dataclass(frozen=True)
class Rest:
    """The rest of a daemon, for the part that there is once; to be asked when all of it has been built.

    :ivar whole: all processes; None: there is only this one.
    :ivar ask_serving: asks what serves, in every process, one of `Serving.answerers`; gives the answers that came.
    :ivar configuration: gives the configuration that is in force.
    """

    whole: AllProcesses | None
    ask_serving: Callable[[str], Coroutine[Any, Any, list[Any]]]
    configuration: Callable[[], Configuration]


class Process:
    """What every process of a daemon has.

    :param limits_descriptors: raise the limit on descriptors and warn when ``limits.connections`` do not fit: for the
        first process of a daemon, from which the others inherit it.
    :param at_end: see `Serving.at_end`; after those of all parts.
    :ivar draining: the daemon is being stopped.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        deadlines: Deadlines,
        instruments: Instruments,
        *,
        limits_descriptors: bool,
        at_end: Sequence[Callable[[], object]] = (),
    ) -> None:
        self.reactor = reactor
        self.deadlines = deadlines
        self.instruments = instruments
        self.at_end: Sequence[Callable[[], object]] = [*at_end, deadlines.stop]
        self.draining = False
        self._limits_descriptors = limits_descriptors
        self._check(settings)

    def drain(self) -> None:
        """The daemon is being stopped."""
        self.draining = True

    def prepare(self, settings: Settings) -> Commit:
        """See `Part`."""

        def commit() -> None:
            self.instruments.log.set_level(settings.logging.level)
            self._check(settings)

        return commit

    def _check(self, settings: Settings) -> None:
        if self._limits_descriptors:
            check_limit(raise_limit(), settings.limits.connections)


class Role(Protocol):
    """What the host daemon, or the enclave daemon, is made of.

    :ivar name: the plugin's name, with which its processes are started, and the first word of its messages.
    """

    name: str

    def processes(self, settings: Settings) -> int:
        """How many processes serve."""

    def drain_delay(self, settings: Settings) -> float:
        """Seconds between the decision to drain and its first step."""

    def check(self, settings: Settings) -> None:
        """Examine once, before anything is built, what the daemon cannot run without.

        :raises nitroproxy.daemon.place.Unable: when it is missing.
        """

    def process(self, reactor: Any, settings: Settings, output: int, worker: int | None) -> Process:
        """What a process has.

        :param output: the descriptor to log to.
        :param worker: which process it is: see `nitroproxy.telemetry.metrics.Metrics`.
        """

    def servers(self, reactor: Any, settings: Settings) -> Stages:
        """Where the daemon listens.

        :raises OSError: when the directory of UNIX sockets cannot be made.
        """

    def serving(self, process: Process, settings: Settings, whole: AllProcesses | None, ask_once: AskOnce) -> Serving:
        """What serves in *process*.

        :param whole: all processes of the daemon; None: this is the only one.
        :param ask_once: asks what `once` has made, here or in the first process.
        :raises nitroproxy.daemon.reload.Unloadable: when a file of the configuration cannot be used.
        """

    def once(self, process: Process, settings: Settings, rest: Rest) -> Once:
        """What the daemon has once; *process* is the only or the first one.

        :raises nitroproxy.daemon.reload.Unloadable: when a file of the configuration cannot be used.
        """


def prepare_all(parts: Sequence[Part], settings: Settings) -> Commit:
    """Prepare every part, then return what puts all in force: see `Part`."""
    commits = [part.prepare(settings) for part in parts]

    def commit() -> None:
        for commit_part in commits:
            commit_part()

    return commit


def places_of(servers: Stages, serving: Serving) -> list[list[ListeningPlace]]:
    """The places at which this process accepts for *serving*, by stage."""
    factories = iter(serving.factories)
    return [
        [ListeningPlace(server.endpoint, server.name, next(factories), shared=server.lent) for server in stage]
        for stage in servers
    ]
