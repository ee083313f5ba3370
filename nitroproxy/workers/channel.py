"""Questions and answers between the supervisor and a worker, both ways over a socket pair.

Knows nothing of what is asked.
"""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

_log: Final = Logger()

#: Bytes of a message, at most. The longest is a configuration, which has about as many as its file: twice the most that
#: one may have (`nitroproxy.config.jsonc`).
LONGEST: Final = 1 << 24

#: Given the argument of a question; gives its answer. Both are plain values.
Answerer = Callable[[Any], Awaitable[Any]]


class NoAnswer(Exception):
    """The other end has gone, did not answer in time, or could not."""


class Refused(NoAnswer):
    """The other end answers that it could not."""


class _Question(msgspec.Struct, frozen=True, array_like=True, tag="?"):
    number: int
    what: str
    about: Any


class _Answer(msgspec.Struct, frozen=True, array_like=True, tag="!"):
    number: int
    value: Any
    problem: str = ""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Question | _Answer).decode


class Channel(Int32StringReceiver):
    """One end.

    :param answerers: what can be asked at this end, by name.
    :param lost: called once when the channel is closed, by either end.
    """

    MAX_LENGTH = LONGEST

    def __init__(self, clock: IReactorTime, answerers: Mapping[str, Answerer], lost: Callable[[], object]) -> None:
        self._clock = clock
        self._answerers = answerers
        self._lost = lost
        self._numbers = itertools.count()
        self._waiting: dict[int, Deferred[Any]] = {}
        self._open = False

    def connectionMade(self) -> None:
        self._open = True

    def ask(self, what: str, about: object = None, timeout: float = 1.0) -> Deferred[Any]:
        """Ask the other end. Questions are begun there in the order in which they are asked.

        :param timeout: seconds after which the answer is no longer waited for.
        :returns: fires with the answer, or fails with `NoAnswer`.
        """
        if not self._open:
            return fail(NoAnswer("the process has gone"))
        number = next(self._numbers)
        question = _encode(_Question(number, what, about))
        if len(question) > LONGEST:
            return fail(NoAnswer(f"the question has over {LONGEST} bytes"))
        answer: Deferred[Any] = Deferred()
        self._waiting[number] = answer
        answer.addTimeout(timeout, self._clock, lambda _, seconds: Failure(NoAnswer(f"none within {seconds:g} s")))

        def forget(outcome: Any) -> Any:
            self._waiting.pop(number, None)
            return outcome

        answer.addBoth(forget)
        self.sendString(question)
        return answer

    def hang_up(self) -> None:
        """Close the channel."""
        transport: Any = self.transport
        transport.abortConnection()

    def stringReceived(self, string: bytes) -> None:
        """A message. One that cannot be read closes the channel: the other end is not what it should be."""
        try:
            message = _decode(string)
        except msgspec.DecodeError as error:
            _log.error("closing a channel: {error}", event="channel_unreadable", error=str(error))
            self.hang_up()
            return
        if isinstance(message, _Question):
            Deferred.fromCoroutine(self._answer(message))
        elif message.number in self._waiting:
            waiting = self._waiting[message.number]
            if message.problem:
                waiting.errback(Refused(message.problem))
            else:
                waiting.callback(message.value)

    async def _answer(self, question: _Question) -> None:
        try:
            answer = _encode(_Answer(question.number, await self._answerers[question.what](question.about)))
            if len(answer) > LONGEST:
                # The other end would close the channel, and with it this process would end.
                raise ValueError(f"the answer has over {LONGEST} bytes")
        except Exception as error:
            _log.failure("answering {what} failed", event="callback_failed", what=question.what)
            answer = _encode(_Answer(question.number, None, f"{type(error).__name__}: {error}"))
        if self._open:
            self.sendString(answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._open = False
        for waiting in list(self._waiting.values()):
            waiting.errback(NoAnswer("the process has gone"))
        self._lost()


def first_string(descriptor: int) -> bytes:
    """The first message; blocks until it is there, for a process that cannot begin without. Leaves *descriptor* open.

    :raises EOFError: when the other end has gone.
    """
    with socket.socket(fileno=descriptor) as end:
        try:
            (size,) = struct.unpack("!I", _exactly(end, 4))
            if size > LONGEST:
                raise EOFError(f"the first message has over {LONGEST} bytes")
            return _exactly(end, size)
        finally:
            end.detach()


def _exactly(end: socket.socket, size: int) -> bytes:
    data = end.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise EOFError("the supervisor has gone")
    return data
