"""Both daemons as processes, an upstream in this one, and a fault proxy on every way between them."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import ssl
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from nitroproxy.demo.certificates import ThrowAwayAuthority
from tests.load.client import BrokenOff, Connection
from tests.load.faults import FaultProxy
from tests.load.upstream import Upstream
from tests.ports import free_port

_TWISTD: Final = Path(sys.executable).with_name("twistd")
_UNIX: Final = ("transport.kind=unix",)
_PAGE: Final = resource.getpagesize()
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Daemon:
    """A daemon's process.

    :param descriptors: most that it may have open; 0: as many as this process.
    :ivar output: where its log goes instead of the file, if that is set before it starts.
    :ivar own_group: whether it is the first of a process group, as a terminal makes one, if set before it starts.
    """

    output: int | None = None
    own_group = False

    def __init__(self, role: str, options: Sequence[str], log: Path, descriptors: int = 0) -> None:
        self.role = role
        self._options = options
        #: Empty at first; a configuration of this machine's must not come in.
        self.config = log.with_name(f"{role}.json")
        self.config.write_text("{}")
        self.log = log
        self._descriptors = descriptors
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; it may take a moment until it listens."""
        sets = [word for option in self._options for word in ("--set", option)]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(
                    str(_TWISTD),
                    "-n",
                    "--pidfile=",
                    "--reactor=nitroproxy",
                    f"nitroproxy-{self.role}",
                    "--config",
                    str(self.config),
                    *sets,
                ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log if self.output is None else self.output,
                stderr=log,
                start_new_session=self.own_group,
                cwd=self.log.parent,
                env={name: value for name, value in os.environ.items() if not name.startswith("NITROPROXY_")},
            )
        if self._descriptors:
            resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (self._descriptors, self._descriptors))

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, timeout: float) -> int:
        """Its exit status, once it has ended; killed after *timeout* seconds."""
        assert self._process is not None
        try:
            return await asyncio.wait_for(self._process.wait(), timeout)
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()

    async def stop(self) -> None:
        """Kill it if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    @property
    def children(self) -> list[int]:
        """Processes that it has started."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    @property
    def resident(self) -> int:
        """Its resident memory, in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE

    @property
    def descriptors(self) -> int:
        """Its open descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def cpu(self) -> float:
        """Seconds of processor time it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


class Surroundings(Protocol):
    """Two daemons, wherever they run, with clients on every side and a destination.

    :ivar gateway: the gateway's TCP port on the loopback.
    """

    gateway: int

    @property
    def ways(self) -> tuple[FaultProxy, ...]:
        """All on which faults can be put."""

    async def path_form(self) -> Connection:
        """A client of the gateway."""

    async def enclave_path_form(self) -> Connection:
        """A client of the enclave's proxy."""

    async def tunnel(self) -> Connection:
        """A client of the enclave's proxy with TLS of its own, through a tunnel."""

    async def descriptors(self) -> dict[str, int]:
        """The open descriptors of each daemon."""

    async def residents(self) -> dict[str, int]:
        """The resident memory of each daemon, in bytes."""

    def tracebacks(self) -> int:
        """How many tracebacks the daemons have logged."""


class Stack:
    """The whole of it, in a directory of its own; an asynchronous context manager.

    :param options: configuration for both daemons, ``section.key=value``.
    :param descriptors: most that the host daemon may have open.
    :ivar to_enclave: between gateway and enclave.
    :ivar to_relay: between enclave and relay.
    :ivar to_logs: between enclave and the host's log listener.
    :ivar to_upstream: between relay and upstream.
    """

    def __init__(self, *options: str, descriptors: int = 0) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="nitroproxy-load."))
        authority = ThrowAwayAuthority()
        (self.directory / "ca.pem").write_bytes(authority.pem)
        (self.directory / "upstream.pem").write_bytes(authority.issue().pem)
        self.gateway, self.loopback = free_port(), free_port()
        #: Real vsock between the daemons, on one kernel: only where a guest says so. Nothing is in between then.
        self._vsock = bool(os.environ.get("NITROPROXY_TEST_VSOCK"))
        common = [
            *(("transport.kind=vsock", "transport.parent_cid=1", "enclave.cid=1") if self._vsock else _UNIX),
            f"host_proxy.port={self.gateway}",
            f"enclave.proxy_port={self.loopback}",
            f"tls.ca_file={self.directory}/ca.pem",
            'egress.allow=["localhost:*"]',
            'egress.allow_addresses=["127.0.0.0/8","::1/128"]',
            *options,
        ]
        # Each daemon looks for the other where a fault proxy listens.
        self._sockets = {party: self.directory / f"of-{party}" for party in ("host", "enclave")}
        self.host, self.enclave = (
            Daemon(
                party,
                [*common, f"transport.directory={self._sockets[party]}"],
                self.directory / f"{party}.log",
                descriptors if party == "host" else 0,
            )
            for party in ("host", "enclave")
        )
        self.to_enclave = FaultProxy(self._sockets["enclave"] / "enclave" / "5000.sock")
        self.to_relay = FaultProxy(self._sockets["host"] / "host" / "5001.sock")
        self.to_logs = FaultProxy(self._sockets["host"] / "host" / "5002.sock")
        self.to_upstream = FaultProxy(0)
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(self.directory / "upstream.pem")
        self.upstream = Upstream(server)
        self.client_context = ssl.create_default_context(cafile=self.directory / "ca.pem")
        self.port = 0

    @property
    def url(self) -> str:
        """The upstream, as a client names it."""
        return f"https://localhost:{self.port}"

    async def __aenter__(self) -> Stack:
        self.to_upstream.onward = await self.upstream.listen()
        self.port = await self.to_upstream.listen(0)
        if not self._vsock:
            await self.to_enclave.listen(self._sockets["host"] / "enclave" / "5000.sock")
            await self.to_relay.listen(self._sockets["enclave"] / "host" / "5001.sock")
            await self.to_logs.listen(self._sockets["enclave"] / "host" / "5002.sock")
        for daemon in (self.enclave, self.host):
            await daemon.start()
        try:
            await self.until_healthy(60)  # Several processes on a loaded machine take a while.
        except BaseException:
            await self.__aexit__(*sys.exc_info())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for daemon in (self.host, self.enclave):
            await daemon.stop()
        for proxy in self.ways:
            await proxy.close()
        await self.upstream.close()
        if error is None:
            shutil.rmtree(self.directory)
        else:
            print(f"logs: {self.directory}", file=sys.stderr)

    async def until_healthy(self, within: float = 20.0) -> float:
        """Wait for ``/health`` to be 200; returns the seconds that took.

        :raises TimeoutError: if it is not in *within* seconds.
        """
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(within):
            while await self.health() != 200:
                await asyncio.sleep(0.05)
        return asyncio.get_running_loop().time() - began

    async def health(self) -> int:
        """The status of the gateway's ``/health``; 0 when there is no answer."""
        try:
            connection = Connection(*await asyncio.open_connection("127.0.0.1", self.gateway), "")
            answer = await connection.ask("GET", "/health")
        except (OSError, BrokenOff):
            return 0
        connection.abort()
        return answer.status

    async def path_form(self) -> Connection:
        """A client of the gateway."""
        return await Connection.path_form(self.gateway, self.url)

    async def enclave_path_form(self) -> Connection:
        """A client of the enclave's loopback."""
        return await Connection.path_form(self.loopback, self.url)

    async def tunnel(self) -> Connection:
        """A client in the enclave with TLS of its own."""
        return await Connection.tunnel(self.loopback, self.port, self.client_context)

    async def descriptors(self) -> dict[str, int]:
        """The open descriptors of each daemon."""
        return {daemon.role: daemon.descriptors for daemon in (self.host, self.enclave)}

    async def residents(self) -> dict[str, int]:
        """The resident memory of each daemon, in bytes."""
        return {daemon.role: daemon.resident for daemon in (self.host, self.enclave)}

    @property
    def ways(self) -> tuple[FaultProxy, ...]:
        """All on which faults can be put."""
        return self.to_enclave, self.to_relay, self.to_logs, self.to_upstream

    def tracebacks(self) -> int:
        """How many tracebacks the daemons have logged."""
        return sum(
            (self.directory / f"{party}.log").read_text("utf-8", "replace").count("Traceback (most recent call last)")
            for party in ("host", "enclave")
        )
