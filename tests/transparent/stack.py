"""Two network namespaces, like a host's and an enclave's, and what runs in them: destinations, relay, enclave daemon.

Only UNIX sockets, which are files, lead from one to the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).parent.parent.parent
_UNSHARE: Final = ("unshare", "--net", "--mount", "--propagation", "private")
#: What is left would go on when this process is killed.
_WITH_US: Final = ("setpriv", "--pdeathsig", "TERM")
#: Seconds for a part to be ready.
_PATIENCE: Final = 60.0
#: Where programs look for the authorities that they trust: curl, OpenSSL, Python's requests, Node, git, libpq, pip.
_CA_VARIABLES: Final = (
    *("CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"),
    *("PGSSLROOTCERT", "PIP_CERT"),
)


class Stack:
    """See the module. A context manager.

    :param processes: of the enclave daemon.
    :param early: a command that is run inside before enclave-init is.
    :param more: sections of the configuration, whose keys take the place of ours.
    :ivar directory: for files of those who run something in it.
    """

    def __init__(
        self, processes: int = 1, more: Mapping[str, Mapping[str, Any]] | None = None, early: Sequence[str] = ()
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="nitroproxy-transparent.", dir="/tmp"))  # A short path.
        self.directory.chmod(0o711)  # Servers run as users of their own.
        self._processes = processes
        self._more = more or {}
        self._early = early
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Stack:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        for _, process in reversed(self._running):
            process.terminate()
        for _, process in reversed(self._running):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            process.kill()
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def log(self) -> str:
        """What the enclave daemon, and init, have logged."""
        return (self.directory / "inside.log").read_text()

    def _start(self) -> None:
        self._outside = self.spawn("outside", [*_UNSHARE, *_module("outside"), str(self.directory)], keep_input=True)
        self.wait_for("outside", "ready")
        self._configure()
        twistd = str(Path(sys.executable).parent / "twistd")
        words = [twistd, "-n", "--pidfile=", "--reactor=nitroproxy", "nitroproxy-host", "--config"]
        self.spawn("host", self.outside([*words, str(self.directory / "config.json")]))
        self.wait_for("host", "nitroproxy-relay: listening")
        self._inside = self.spawn("inside", [*_UNSHARE, *_module("inside"), str(self.directory), *self._early])
        self.wait_for("inside", "info  ready")

    def _configure(self) -> None:
        sections: dict[str, dict[str, Any]] = {
            "transport": {"kind": "unix", "directory": str(self.directory / "s")},
            "enclave": {"transparent": {"enabled": True}, "processes": self._processes, "proxy_port": 8080},
            "egress": {
                "allow": ["*.test:*", "*.many.test:*", "192.0.2.0/24:*", "169.254.169.254:*", "10.0.0.0/8:*"],
                "deny": ["denied.test:*"],
                "allow_addresses": ["127.0.0.0/8", "192.0.2.0/24"],
            },
            "tls": {"ca_file": str(self.directory / "ca.pem")},
            "logging": {"format": "json"},
        }
        for name, keys in self._more.items():
            sections.setdefault(name, {}).update(keys)
        (self.directory / "config.json").write_text(json.dumps(sections))

    def spawn(self, name: str, words: Sequence[str], *, keep_input: bool = False) -> subprocess.Popen[bytes]:
        """Run *words* until the end, its output in a file."""
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*_WITH_US, *words],
                stdin=subprocess.PIPE if keep_input else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=_ROOT,
                start_new_session=True,
            )
        self._running.append((name, process))
        return process

    def wait_for(self, name: str, words: str) -> None:
        """Wait until the process of that name has printed *words*.

        :raises RuntimeError: it ends, or takes too long; with what it printed last.
        """
        process = dict(self._running)[name]
        path = self.directory / f"{name}.log"
        until = time.monotonic() + _PATIENCE
        while words not in path.read_text():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{name} is not ready:\n{path.read_text()[-3000:]}")
            time.sleep(0.05)

    def outside(self, words: Sequence[str]) -> list[str]:
        """The command that runs *words* in the host's namespace."""
        return _enter(self._outside, words)

    def inside(self, words: Sequence[str]) -> list[str]:
        """The command that runs *words* in the enclave's."""
        return _enter(self._inside, words)

    def environ(self) -> dict[str, str]:
        """The environment of what runs inside: no proxy, our authority."""
        environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return environ | dict.fromkeys(_CA_VARIABLES, str(self.directory / "ca.pem"))

    def run(
        self, words: Sequence[str], *, timeout: float = 60, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run *words* inside to its end."""
        return subprocess.run(
            self.inside(words),
            env=self.environ() | dict(environ or {}),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def daemons(self) -> list[int]:
        """The process ids of the enclave daemon: its first process, then its workers."""
        [first] = [pid for pid in _children(self._inside.pid) if "nitroproxy-enclave" in _words(pid)]
        return [first, *_children(first)]

    def kill(self, pid: int) -> None:
        """Kill a process of the daemon."""
        os.kill(pid, signal.SIGKILL)


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"tests.transparent.{name}"]


def _enter(process: subprocess.Popen[bytes], words: Sequence[str]) -> list[str]:
    """Entering the namespace of mounts changes the working directory."""
    here = 'cd "$0" && exec "$@"'
    namespaces = ["nsenter", "--target", str(process.pid), "--net", "--mount"]
    return [*namespaces, "sh", "-c", here, os.getcwd(), *words]


def _children(parent: int) -> list[int]:
    """The process ids of the children of *parent*, the oldest first."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append((int(fields[19]), int(path.parent.name)))
    return [pid for _, pid in sorted(found)]


def _words(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
