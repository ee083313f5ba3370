"""What the enclave daemon has once, and what all of its processes make of the configuration alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from twisted.internet.defer import Deferred

from nitroproxy.config.options import tls_settings
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.place import Place, exit_with
from nitroproxy.daemon.reload import Unloadable
from nitroproxy.daemon.role import Commit, Process
from nitroproxy.daemon.wiring import activated_socket
from nitroproxy.enclave.attestor import Attestor, open_attestor
from nitroproxy.enclave.gates import GateFailed
from nitroproxy.enclave.kms import Recipient
from nitroproxy.policy import Policy
from nitroproxy.telemetry.metrics import TLSMetrics
from nitroproxy.tls.client import TLSClient
from nitroproxy.tls.server import TLSServer
from nitroproxy.tls.settings import TLSFileError
from nitroproxy.transparent.answers import Answer, Answers
from nitroproxy.transparent.dns_metrics import DNSMetrics
from nitroproxy.transparent.dns_server import NameServer, Reports
from nitroproxy.transparent.names import NameTable
from nitroproxy.transparent.network import DNS_TCP, DNS_UDP, LISTENER_V4, LISTENER_V6

#: The name of the proxy in the enclave.
HOP: Final = "nitroproxy-enclave"


def policy_of(settings: Settings) -> Policy:
    """Which destinations are allowed."""
    return Policy(settings.egress.allow, settings.egress.deny)


def tls_of(settings: Settings, handshakes: TLSMetrics, protocols: Sequence[bytes] = (b"http/1.1",)) -> TLSClient:
    """TLS with destinations.

    :param protocols: those that are offered (ALPN).
    :raises Unloadable: when a file that the section tls names cannot be used.
    """
    try:
        return TLSClient(tls_settings(settings.tls), protocols=protocols, shook_hands=handshakes.shook_hands)
    except TLSFileError as error:
        raise Unloadable(str(error)) from error


def attested_server(settings: Settings) -> TLSServer | None:
    """TLS for the attested listener; None: there is none.

    :raises Unloadable: when the file of clients' authorities cannot be used.
    """
    if settings.attestation.device is None or not settings.ingress.port:
        return None
    try:
        return TLSServer(settings.ingress.client_ca_file)
    except ValueError as error:
        raise Unloadable(f"ingress.client_ca_file: {error}") from error


def names_of(settings: Settings) -> NameTable:
    """The names that have an address, for enclave.transparent. The file is in the directory of sockets.

    :raises Unloadable: when there can be no such file.
    """
    directory = Path(settings.transport.directory)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return NameTable(str(directory / "names"))
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise Unloadable(f"transport.directory: no file for the names of enclave.transparent: {reason}") from error


def transparent_listeners(settings: Settings) -> Sequence[str]:
    """The names of the sockets to which the network redirects connections: one of each family that the kernel has; none
    without enclave.transparent."""
    if not settings.enclave.transparent.enabled:
        return []
    return [LISTENER_V4, LISTENER_V6] if os.path.exists("/proc/net/if_inet6") else [LISTENER_V4]


def check_sockets(settings: Settings) -> None:
    """End the process when it was not given the sockets of enclave.transparent, which who makes the network opens.

    :raises nitroproxy.daemon.place.Unable: after a line that says so.
    """
    wanted = list(transparent_listeners(settings))
    if wanted and settings.enclave.transparent.dns:
        wanted += [DNS_UDP, DNS_TCP]
    if any(activated_socket(None, name) is None for name in wanted):
        exit_with(
            f"{HOP}: enclave.transparent: this process was not given the sockets {', '.join(wanted)}: start the daemon "
            "by nitroproxy enclave-init"
        )


class EnclaveOnce:
    """What the daemon has once: the NSM, the identity and the key for KMS, if it attests, and the answers to questions
    about names. See `nitroproxy.daemon.role.Once`.

    It also examines the files that the section tls names, so that the first process of several refuses one that the
    workers could not use.
    """

    answerers: Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]] = MappingProxyType({})
    at_end: Sequence[Callable[[], object]] = ()

    def __init__(self, process: Process, settings: Settings) -> None:
        self._answers: Answers | None = None
        self.prepare(settings)
        transparent = settings.enclave.transparent
        answers_names = transparent.enabled and transparent.dns
        self.places: Sequence[Place] = [self._name_server(process, settings)] if answers_names else []
        self._attestor: Attestor | None = None
        attestation = settings.attestation
        if attestation.device is None:
            return
        try:
            attestor = open_attestor(process.reactor, attestation.device, emulated=attestation.emulated)
        except GateFailed as error:
            exit_with(f"{HOP}: {error}")
        self._attestor = attestor
        self.answerers = {**attestor.answerers, **Recipient().answerers}
        self.at_end = [attestor.stop]
        process.instruments.metrics.sources.append(attestor.metrics.collect)

    def _name_server(self, process: Process, settings: Settings) -> NameServer:
        """Answers applications' questions about names, for enclave.transparent."""
        table = names_of(settings)
        answers = self._answers = Answers(table, policy_of(settings), lambda: os.uname().nodename)
        metrics, reports = DNSMetrics(table), Reports(process.deadlines.seconds)
        process.instruments.metrics.sources.append(metrics.collect)

        def on_answer(kind: int, name: bytes, answer: Answer) -> None:
            metrics.answered(kind, answer)
            reports(name, answer)

        udp, tcp = (activated_socket(process.reactor, name) for name in (DNS_UDP, DNS_TCP))
        assert udp is not None
        assert tcp is not None
        return NameServer(process.reactor, udp, tcp, answers.answer, on_answer, process.deadlines)

    @property
    def shared(self) -> bytes:
        """See `nitroproxy.daemon.role.Once`."""
        return self._attestor.shared if self._attestor is not None else b""

    def watch(self, tell: Callable[[bytes], Deferred[Any]]) -> None:
        """See `nitroproxy.daemon.role.Once`."""
        if self._attestor is not None:
            self._attestor.watch(tell)

    def prepare(self, settings: Settings) -> Commit:
        """See `nitroproxy.daemon.role.Part`."""
        tls_of(settings, TLSMetrics())
        attested_server(settings)
        answers = self._answers
        return lambda: None if answers is None else answers.use(policy_of(settings))
