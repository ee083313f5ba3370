"""Daemons as processes, for tests of several together: their output is read, and they end with the test."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import threads
from twisted.internet.defer import Deferred

#: Seconds after which a daemon that does not end is killed.
_PATIENCE = 30.0


class Daemon:
    """One process.

    :ivar output: what it has printed.
    """

    def __init__(self, words: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
        self.output = b""
        self._said = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @classmethod
    def twistd(cls, plugin: str, config: Path) -> Daemon:
        """One of the project's daemons."""
        program = str(Path(sys.executable).with_name("twistd"))
        return cls([program, "-n", "--pidfile=", "--reactor=nitroproxy", plugin, "--config", str(config)])

    def _read(self) -> None:
        pipe: Any = self._process.stdout
        for line in pipe:
            with self._said:
                self.output += line
                self._said.notify_all()
        with self._said:
            self._ended = True
            self._said.notify_all()
        pipe.close()

    def said(self, words: bytes) -> Deferred[None]:
        """Fires when it has printed *words*; fails when it ends without."""

        def wait() -> None:
            with self._said:
                self._said.wait_for(lambda: words in self.output or self._ended)
                if words not in self.output:
                    raise AssertionError(self.output.decode("utf-8", "replace"))

        return threads.deferToThread(wait)

    def wait(self) -> Deferred[int]:
        """Fires with its status when it has ended by itself."""

        def wait() -> int:
            status = self._process.wait()
            self._reader.join()
            return status

        return threads.deferToThread(wait)

    def end(self) -> Deferred[int]:
        """End it, unless it has ended; fires with its status."""

        def end() -> int:
            self._process.terminate()
            try:
                status = self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                status = self._process.wait()
            self._reader.join()
            return status

        return threads.deferToThread(end)
