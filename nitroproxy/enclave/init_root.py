"""The composition root of the enclave's init: checks, builds the parts, joins them, says at last why it ended."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger, globalLogBeginner
from twisted.python.failure import Failure

from nitroproxy.config.load import Configuration, ConfigurationError, load
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.wiring import hop_client, pool_settings
from nitroproxy.enclave import init_activation
from nitroproxy.enclave.credentials import PATH as CREDENTIALS_PATH
from nitroproxy.enclave.init import WATCHDOG_SECONDS, EnclaveInit, Ending, Plan
from nitroproxy.enclave.init_children import Account, Children, Command, OnLine
from nitroproxy.enclave.init_clock import ClockKeeper, SystemClock, make_readable
from nitroproxy.enclave.init_notify import NotifySocket, listen, variables
from nitroproxy.enclave.init_system import CannotStart, account, bring_loopback_up, find_program
from nitroproxy.enclave.ptp import DEVICE as CLOCK
from nitroproxy.errors import Kind
from nitroproxy.proxy.connect_endpoint import HopEndpoint
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.logs import EventLog, Lines, timestamp
from nitroproxy.telemetry.shipping import LogShipper, post_to
from nitroproxy.transparent.network import NetworkError, set_up

_log: Final = Logger()

#: Names the application's user. It is init's: the daemons refuse variables that they do not know.
APPLICATION_USER: Final = "NITROPROXY_APP_USER"
_DAEMON_ACCOUNT: Final = Account(65532, 65532)
_DEFAULT_APPLICATION_USER: Final = "65533"
#: What only an enclave has.
_NSM: Final = "/dev/nsm"
#: Files that the daemon may have open, as in its systemd unit.
_DESCRIPTORS: Final = 65536
#: Variables of the service manager above init, if there is one: init takes its part.
_MANAGERS: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
#: What SDKs read to find credentials by a URL; an image that sets one of them has its own way.
_CREDENTIALS_URL: Final = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
_CREDENTIALS_TOKEN: Final = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105  # the variable's name
_OWN_CREDENTIALS: Final = frozenset(
    {_CREDENTIALS_URL, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", _CREDENTIALS_TOKEN, f"{_CREDENTIALS_TOKEN}_FILE"}
)
#: Tells the daemon which token the application has, and is no use to who reads it.
_TOKEN_DIGEST: Final = "NITROPROXY_CREDENTIALS_TOKEN_SHA256"  # noqa: S105  # the variable's name
_TOKEN_BYTES: Final = 32
#: Bytes of log lines that may wait for the host; the oldest are dropped.
_WAITING_BYTES: Final = 2 << 20
#: Seconds for the last lines to reach the console.
_LAST_LINES: Final = 1.0


def run(words: Sequence[str], config: str | None, environ: Mapping[str, str]) -> int:
    """Be the enclave's first program until it is over; the exit status.

    :param words: the application and its arguments; none for an enclave that is a proxy for its host only.
    :param config: the configuration file; None for the daemon's default.
    """
    from twisted.internet import reactor

    root = _Root(reactor, words, config, environ)
    root.begin()
    return root.run()


class _Root:
    """The parts."""

    def __init__(self, reactor: Any, words: Sequence[str], config: str | None, environ: Mapping[str, str]) -> None:
        self._reactor = reactor
        self._words = words
        self._config = config
        self._environ = {name: value for name, value in environ.items() if name != APPLICATION_USER}
        self._user = environ.get(APPLICATION_USER, _DEFAULT_APPLICATION_USER)
        self._lines = Lines("text", 1, priorities=False)
        self._takers = [self._lines.take]
        self._event_log = EventLog("INFO", self._takers)
        self._shipper: LogShipper | None = None
        self._status = 1

    def begin(self) -> None:
        """Make init's log the process's."""
        globalLogBeginner.beginLoggingTo([self._event_log], redirectStandardIO=False, discardBuffer=True)

    def run(self) -> int:
        """Run the reactor until everything is over."""
        self._reactor.callWhenRunning(self._start)
        self._reactor.run()
        self._lines.sink.flush(_LAST_LINES)
        return self._status

    def _start(self) -> None:
        done = Deferred.fromCoroutine(self._live())
        done.addBoth(lambda ignored: self._reactor.stop())

    async def _live(self) -> None:
        try:
            configuration = self._load()
            self._ship(configuration.settings)
            ending = await self._run(configuration.settings)
        except CannotStart as error:
            ending = Ending(1, str(error), "", started=False)
        except Exception:
            ending = Ending(1, "internal error", Failure().getTraceback(), started=False)
        await self._end(ending)

    def _load(self) -> Configuration:
        """The configuration, or, where it cannot be used, its problems as the reason."""
        try:
            return load(self._config, environ=self._environ)
        except ConfigurationError as error:
            self._ship_without_configuration()
            raise CannotStart(f"the configuration cannot be used: {error}") from error

    def _ship_without_configuration(self) -> None:
        """The reason goes to the log port that the environment or the defaults name."""
        with tempfile.NamedTemporaryFile("w", suffix=".json") as empty:
            empty.write("{}")
            empty.flush()
            try:
                self._ship(load(empty.name, environ=self._environ).settings)
            except ConfigurationError:
                _log.error("the host cannot be told: the environment is wrong too", event="log_not_shipped")

    def _ship(self, settings: Settings) -> None:
        """Send init's log, and what the application prints, to the host."""
        if not settings.logging.port:
            return
        endpoint, place = hop_client(self._reactor, settings, "host", settings.logging.port)
        failure = f"cannot reach the host's log listener at {place}"
        host = HopEndpoint(endpoint, Kind.RELAY_UNAVAILABLE, failure, settings.limits.buffer_bytes)
        deadlines = Deadlines(self._reactor)
        pool = Pool(
            lambda key, identity: host, deadlines, pool_settings(settings.limits), end_is_proof=lambda key: False
        )
        self._shipper = LogShipper(post_to(pool, deadlines), self._reactor, most=_WAITING_BYTES)
        self._takers.append(self._shipper.take)

    async def _run(self, settings: Settings) -> Ending:
        root = os.geteuid() == 0
        if bring_loopback_up():
            _log.info("the loopback interface is up", event="loopback_up")
        if root and os.path.exists(_NSM):
            self._keep_clock()
        daemon_account, application_account = (_DAEMON_ACCOUNT, account(self._user)) if root else (None, None)
        sockets = self._make_network(settings, daemon_account) if settings.enclave.transparent.enabled else {}
        with tempfile.TemporaryDirectory(prefix="nitroproxy-init-") as directory:
            os.chmod(directory, 0o711)  # noqa: S103  # the daemon's user passes through it
            place = Path(directory) / "notify"
            plan = self._plan(settings, place, daemon_account, application_account, sockets)
            children = Children(self._reactor)
            init = EnclaveInit(
                self._reactor, children.start, plan, self._application_line(settings), self._console_line
            )
            listen(self._reactor, place, NotifySocket(init.ready, init.alive), daemon_account)
            self._watch_signals(children, init)
            return await init.run()

    def _keep_clock(self) -> None:
        """Keep the clock, now and from now on. In an enclave only: any other machine's clock is its own affair."""
        with suppress(OSError):  # The keeper says so.
            make_readable(CLOCK)
        ClockKeeper(self._reactor, SystemClock(CLOCK)).start()

    def _make_network(self, settings: Settings, daemon: Account | None) -> Mapping[str, int]:
        """Make the network for enclave.transparent; the sockets to which it leads, by name.

        :raises CannotStart: when that is impossible.
        """
        try:
            network = set_up(dns=settings.enclave.transparent.dns, environ=self._environ)
            directory = Path(settings.transport.directory)
            if not directory.exists():
                directory.mkdir(mode=0o700, parents=True)
                if daemon is not None:
                    os.chown(directory, daemon.uid, daemon.gid)
        except NetworkError as error:
            raise CannotStart(f"enclave.transparent: {error}") from error
        except OSError as error:
            raise CannotStart(f"transport.directory: {error.filename}: {error.strerror}") from error
        for note in network.notes:
            _log.warn("enclave.transparent: {note}", event="network_note", note=note)
        _log.info("all connections of applications lead to the daemon", event="network_made")
        return init_activation.held(network.sockets)

    def _plan(
        self,
        settings: Settings,
        place: Path,
        daemon: Account | None,
        application: Account | None,
        sockets: Mapping[str, int],
    ) -> Plan:
        """What to run.

        :raises CannotStart: a program is missing.
        """
        environ = {name: value for name, value in self._environ.items() if name not in _MANAGERS}
        twistd = find_program(str(Path(sys.executable).parent / "twistd"), environ)
        arguments = ["-n", "--pidfile=", "--reactor=nitroproxy", "nitroproxy-enclave"]
        if self._config is not None:
            arguments += ["--config", self._config]
        words = init_activation.words(sockets, arguments) if sockets else [twistd, *arguments]
        own_variables, digest = _credentials_variables(settings, environ)
        daemon_environ = {**environ, **digest, **variables(place, WATCHDOG_SECONDS)}
        command = None
        if self._words:
            program = find_program(self._words[0], environ)
            own = {**_proxy_variables(settings), **own_variables, **environ}
            command = Command([program, *self._words[1:]], own, application)
        started = Command(words, daemon_environ, daemon, _DESCRIPTORS, tuple(sockets.values()))
        return Plan(started, command, settings.limits.drain_timeout)

    def _watch_signals(self, children: Children, init: EnclaveInit) -> None:
        """In place of Twisted's handlers: its reaping knows no orphans, and its SIGTERM would end the reactor."""
        handlers = {signal.SIGCHLD: children.reap, signal.SIGTERM: init.stop, signal.SIGINT: init.stop}

        def handle(number: int, frame: object) -> None:
            self._reactor.callFromThread(handlers[signal.Signals(number)])

        for number in handlers:
            signal.signal(number, handle)

    def _application_line(self, settings: Settings) -> OnLine:
        def take(stream: str, line: str) -> None:
            fields: dict[str, Any] = dict(
                time=timestamp(time.time()),
                level="info",
                event="application_output",
                message=line,
                source="application",
                stream=stream,
            )
            for taker in self._takers if settings.logging.application else [self._lines.take]:
                taker(fields)

        return take

    def _console_line(self, stream: str, line: str) -> None:
        """The daemon's own lines are whole already, and it ships them itself."""
        self._lines.sink.write(line.encode("utf-8", "backslashreplace") + b"\n")

    async def _end(self, ending: Ending) -> None:
        """Say why it is over, here and to the host, as far as that is possible."""
        self._status = ending.status
        facts = {"status": ending.status, "reason": ending.reason, "output": ending.output}
        output = ": {output}" if ending.output else ""
        if not ending.started:
            _log.critical("the enclave did not start: {reason}" + output, event="enclave_did_not_start", **facts)
        elif ending.status:
            _log.critical("the enclave ended: {reason}" + output, event="enclave_ended", **facts)
        else:
            _log.info("the enclave ended: {reason}", event="enclave_ended", **facts)
        if self._shipper is not None:
            await self._shipper.flush()
            self._shipper.stop()


def _proxy_variables(settings: Settings) -> Mapping[str, str]:
    """Where the application finds the proxy, for libraries that look for it and need it."""
    enclave = settings.enclave
    if not enclave.proxy_port or enclave.transparent.enabled:
        return {}
    host = f"[{enclave.proxy_interface}]" if ":" in enclave.proxy_interface else enclave.proxy_interface
    url = f"http://{host}:{enclave.proxy_port}"
    return {"HTTPS_PROXY": url, "https_proxy": url}


def _credentials_variables(
    settings: Settings, environ: Mapping[str, str]
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """How the application finds the role's credentials, with a token that is made now and is nowhere else; and the
    daemon's variable, by which it knows the token again. Nothing when the image has its own way."""
    section, enclave = settings.credentials, settings.enclave
    if section.role is None or section.token_sha256 is not None or not _OWN_CREDENTIALS.isdisjoint(environ):
        return {}, {}
    interface = ip_address(enclave.proxy_interface)
    host = "[::1]" if interface.version == 6 else str(interface) if interface.is_loopback else "127.0.0.1"
    token = secrets.token_hex(_TOKEN_BYTES)
    url = f"http://{host}:{enclave.proxy_port}{CREDENTIALS_PATH}"
    return (
        {_CREDENTIALS_URL: url, _CREDENTIALS_TOKEN: token},
        {_TOKEN_DIGEST: sha256(token.encode("ascii")).hexdigest()},
    )
