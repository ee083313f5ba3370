"""The event loop of the played devices: callbacks for descriptors, in one thread."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE
#: Called with the events that happened, `READ` and `WRITE`.
Ready = Callable[[int], object]


class Loop:
    """Watches descriptors until it is stopped."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, file: int | socket.socket, events: int, ready: Ready) -> None:
        """Call *ready* when any of *events* happens; with no events, watch *file* no longer."""
        known = self._selector.get_map().get(file)
        if not events:
            if known is not None:
                self._selector.unregister(file)
        elif known is None:
            self._selector.register(file, events, ready)
        else:
            self._selector.modify(file, events, ready)

    def forget(self, file: int | socket.socket) -> None:
        """Watch *file* no longer."""
        self.watch(file, 0, lambda events: None)

    def listen(self, path: Path, accepted: Callable[[socket.socket], object]) -> socket.socket:
        """Listen on a UNIX socket, which is returned; what was there is removed."""
        with suppress(FileNotFoundError):
            path.unlink()
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen(1024)
        self.watch(listening, READ, lambda events: accepted(listening.accept()[0]))
        return listening

    def turn(self, timeout: float | None = None) -> None:
        """Wait for events, at most *timeout* seconds, and call what is watching for them."""
        for key, events in self._selector.select(timeout):
            # A callback before this one may have forgotten the file, and closed it: then its number is gone.
            if self._selector.get_map().get(key.fd) is key:
                key.data(events)

    def run(self) -> None:
        """Forever; the process ends by a signal."""
        while True:
            self.turn()
