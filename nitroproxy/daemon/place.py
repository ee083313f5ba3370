"""A place where a daemon listens, with the connections that it accepts there; and the end of a process that cannot
listen.

Knows nothing of what is served, nor of the daemon's life (`nitroproxy.daemon.service`).
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final, NoReturn, Protocol

from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.sockets.quick import accept_quickly
from nitroproxy.sockets.sealing import admit_no_more, seal
from nitroproxy.sockets.spare import SparingSocket

_log: Final = Logger()

#: More connections than can be waiting to be accepted.
_ALL: Final = 1 << 16


class Place(Protocol):
    """A place where a daemon listens: a `ListeningPlace`, or the supervisor's view of one at which workers accept."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def listen(self) -> None:
        """Listen now; ends the process when that is impossible."""

    async def stop(self, timeout: float) -> bool:
        """Stop listening, let the requests under way finish and end what is left.

        :param timeout: seconds after which what is left is aborted.
        :returns: whether all finished in time.
        """

    @property
    def accepting(self) -> bool:
        """Whether new connections are accepted."""

    @property
    def connections(self) -> int:
        """How many are open."""

    def abort(self) -> None:
        """End every connection now."""


class ListeningPlace:
    """A `Place` at which this process accepts.

    :param shared: other processes have the socket too: workers, whose supervisor ends it, or the service manager, which
        goes on listening.
    :ivar name: what to call it in messages.
    """

    def __init__(
        self, endpoint: IStreamServerEndpoint, name: str, factory: DownstreamFactory, *, shared: bool = False
    ) -> None:
        self._endpoint = endpoint
        self.name = name
        self._factory = factory
        self._shared = shared
        self._port: IListeningPort | None = None

    def listen(self) -> None:
        """See `Place` and `listen`."""
        self._port = listen(self._endpoint, self._factory.outer, self._factory.hop, self.name)
        accept_quickly(self._port)
        SparingSocket(self._port, self._factory.spare, self._factory.make_way)
        _log.info("{hop}: listening on {place}", event="listening", hop=self._factory.hop, place=self.name)

    async def stop(self, timeout: float) -> bool:
        """See `Place`."""
        port: Any = self._port
        if port is not None and port.connected:
            if not self._shared:
                timeout -= await seal_queue(port)
            # Accept all that are in the queue: closing it would reset them. stopListening would close it a turn of the
            # reactor later.
            port.numberAccepts = _ALL
            port.doRead()
            port.connectionLost(Failure(ConnectionDone()))
        complete = await self._factory.drain(max(timeout, 0.0))
        if not complete:
            _log.warn(
                "{hop}: aborted what was under way on {place}", event="aborted", hop=self._factory.hop, place=self.name
            )
        return complete

    @property
    def accepting(self) -> bool:
        """See `Place`."""
        port: Any = self._port
        if port is None or not port.connected:
            return False
        return port in port.reactor.getReaders() or getattr(port, "leaves", False)

    @property
    def connections(self) -> int:
        """See `Place`."""
        return len(self._factory.connections)

    def abort(self) -> None:
        """See `Place`."""
        self._factory.abort()


async def seal_queue(port: Any) -> float:
    """Let nothing more into the queue of *port*, a listening port of Twisted's that goes on accepting.

    :returns: the seconds that this has taken.
    """
    seconds = admit_no_more(port.socket)
    if seconds:
        await deferLater(port.reactor, seconds)
    seal(port.socket)
    return seconds


def listen(endpoint: IStreamServerEndpoint, factory: IProtocolFactory, hop: str, place: str) -> IListeningPort:
    """Listen now. Ends the process when that is impossible: a daemon that does not listen is of no use.

    :param hop: whose place it is.
    :param place: what to call it in messages.
    :raises Unable: after a line that says why.
    """
    ports: list[IListeningPort] = []
    failures: list[Failure] = []
    endpoint.listen(factory).addCallbacks(ports.append, failures.append)
    for failure in failures:
        exit_with(f"{hop}: cannot listen on {place}: {_reason(failure)}")
    return ports[0]


def _reason(failure: Failure) -> str:
    """Why it cannot listen, without the place, which an error of Twisted's names again."""
    error: object = failure.value
    if isinstance(error, CannotListenError):
        error = error.socketError
    if str(error) == "Cannot acquire lock":
        return "in use by another daemon"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class Unable(SystemExit, Exception):
    """The daemon cannot run: the process ends with status 1.

    It is an Exception for twistd's sake: in the background twistd reports those, and no others, to the process that
    started it, which would otherwise wait forever.
    """

    def __init__(self, message: str) -> None:
        super().__init__(1)
        self._message = message

    def __str__(self) -> str:
        return self._message


def exit_with(message: str) -> NoReturn:
    """The daemon cannot run: end the process with status 1 and one line.

    On the real standard error, which twistd has replaced by its log; in the background there is only the log.

    :raises Unable: always.
    """
    print(message, file=sys.__stderr__, flush=True)
    if os.path.samestat(os.fstat(2), os.stat(os.devnull)):
        _log.critical("{reason}", event="cannot_start", reason=message)
    raise Unable(message)
