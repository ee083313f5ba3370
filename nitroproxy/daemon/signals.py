"""The signals of a daemon: its first process takes them, its workers leave them to that one.

A terminal sends SIGINT and SIGHUP to the whole process group, and a service manager may send SIGTERM to it. A worker
ignores them; so that none ends it while it starts, it is started with them `blocked`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def take(reactor: Any, terminate: Callable[[int], object], hang_up: Callable[[], object]) -> None:
    """Handle signals, in place of the reactor's own handlers, with which twistd would die of the signal in the end: no
    status of ours.

    :param terminate: called by the reactor with the number of a signal that ends the daemon.
    :param hang_up: called by the reactor for SIGHUP.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: reactor.callFromThread(terminate, number))
    signal.signal(signal.SIGHUP, lambda number, frame: reactor.callFromThread(hang_up))


def ignore() -> None:
    """Ignore them, and unblock them."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


@contextmanager
def blocked() -> Iterator[None]:
    """Block them; a process that is started in here has them blocked from its first moment on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
