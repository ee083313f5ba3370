"""The configuration turned into endpoints and into the engine's settings."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.ends import Enclave, HostProxy, Transport
from nitroproxy.config.schema import Settings
from nitroproxy.config.traffic import Limits
from nitroproxy.daemon import wiring
from nitroproxy.daemon.enclave_record import NAME, EnclaveRecord, remove_record
from nitroproxy.daemon.wiring import (
    ENCLAVE_PATIENCE,
    HOP_FIELDS,
    OnlyFrom,
    enclave_cid,
    gateway_server,
    hop_client,
    hop_server,
    listener_settings,
    pool_settings,
    relay_settings,
    response_timeouts,
)
from nitroproxy.vsock.address import VsockAddress
from nitroproxy.vsock.endpoints import VsockClientEndpoint, VsockServerEndpoint
from nitroproxy.vsock.hybrid import HybridClientEndpoint

reactor: Any = global_reactor
ROOT = Path(__file__).parent.parent
_PLACE = """
from twisted.internet import reactor
from nitroproxy.config.schema import Settings
from nitroproxy.daemon.wiring import gateway_server
print(gateway_server(reactor, Settings())[1])
"""


class PlaceTests(SynchronousTestCase):
    """Where things are."""

    def test_vsock(self) -> None:
        """The enclave is at its CID, the host at the parent's; both listen on their own."""
        settings = Settings(transport=Transport(parent_cid=2))
        server, place = hop_server(reactor, settings, "host", 5001)
        self.assertIsInstance(server, VsockServerEndpoint)
        self.assertEqual(place, "vsock port 5001")
        for party, shown in (("enclave", "vsock 16:5000"), ("host", "vsock 2:5000")):
            client, place = hop_client(reactor, settings, party, 5000)  # type: ignore[arg-type]
            self.assertIsInstance(client, VsockClientEndpoint)
            self.assertEqual(place, shown)

    def test_unix(self) -> None:
        """UNIX sockets stand in for both, in directories that no other user may enter."""
        directory = Path(self.mktemp())
        settings = Settings(transport=Transport(kind="unix", directory=str(directory)))
        _, served = hop_server(MemoryReactorClock(), settings, "enclave", 5000)
        _, dialled = hop_client(MemoryReactorClock(), settings, "enclave", 5000)
        self.assertEqual((served, dialled), (str(directory / "enclave" / "5000.sock"),) * 2)
        self.assertEqual((directory / "enclave").stat().st_mode & 0o777, 0o700)

    def test_automatic_cid(self) -> None:
        """With CID 0 each connection goes to the enclave that runs then; without one it fails at once, saying why."""
        dialled: list[int] = []

        class Client:
            def __init__(self, reactor: Any, cid: int, port: int, timeout: float) -> None:
                dialled.append(cid)

            def connect(self, factory: Any) -> str:
                return "connecting"

        self.patch(wiring, "VsockClientEndpoint", Client)
        directory = Path(self.mktemp())
        settings = Settings(enclave=Enclave(cid=0), transport=Transport(directory=str(directory)))
        client, place = hop_client(reactor, settings, "enclave", 5000)
        self.assertEqual(place, "vsock port 5000")
        any_factory: Any = None
        reason = self.failureResultOf(client.connect(any_factory), ConnectError).getErrorMessage()
        self.assertIn(f"{directory / NAME} cannot be read", reason)
        directory.mkdir()
        for cid in (17, 18):
            EnclaveRecord(cid, "x", "/x.eif", "ab", 1.0).write(directory)
            self.assertEqual(client.connect(any_factory), "connecting")
        self.assertEqual(dialled, [17, 18])

    def test_hybrid(self) -> None:
        """With a hybrid VM the host is at UNIX sockets beside the VM's own; in the VM both ends are vsock."""
        directory = self.mktemp()
        settings = Settings(transport=Transport(kind="hybrid", directory=directory, parent_cid=2))
        _, served = hop_server(MemoryReactorClock(), settings, "host", 5001)
        self.assertEqual(served, f"{directory}/vsock.sock_5001")
        client, dialled = hop_client(MemoryReactorClock(), settings, "enclave", 5000)
        self.assertIsInstance(client, HybridClientEndpoint)
        self.assertEqual(dialled, f"{directory}/vsock.sock, port 5000")
        self.assertIsInstance(hop_server(reactor, settings, "enclave", 5000)[0], VsockServerEndpoint)
        self.assertEqual(hop_client(reactor, settings, "host", 5001)[1], "vsock 2:5001")

    def test_gateway(self) -> None:
        """The gateway is at its interface and port, of either family."""
        for interface, kind, shown in (
            ("127.0.0.1", TCP4ServerEndpoint, "127.0.0.1:8080"),
            ("::1", TCP6ServerEndpoint, "[::1]:8080"),
        ):
            endpoint, place = gateway_server(reactor, Settings(host_proxy=HostProxy(interface=interface)))
            self.assertIsInstance(endpoint, kind)
            self.assertEqual(place, shown)


class LimitTests(SynchronousTestCase):
    """Who may come, and how much."""

    def test_only_from(self) -> None:
        """One CID may use a vsock listener (S17); other families are guarded by their own means."""
        allowed = OnlyFrom(enclave_cid(Settings()))
        self.assertTrue(allowed(VsockAddress(16, 1234)))
        for cid in (0, 1, 2, 3, 15, 17, 4294967295):
            self.assertFalse(allowed(VsockAddress(cid, 1234)), cid)
        self.assertTrue(allowed(UNIXAddress("/x")))
        self.assertTrue(allowed(IPv4Address("TCP", "127.0.0.1", 1)))

    def test_only_from_the_running(self) -> None:
        """With CID 0 only the enclave that runs may use the relay; a CID that is free may become another's (S17)."""
        directory = Path(self.mktemp())
        settings = Settings(enclave=Enclave(cid=0), transport=Transport(directory=str(directory)))
        accepts = relay_settings(settings).accepts
        everyone = [VsockAddress(cid, 1) for cid in (0, 1, 2, 3, 16, 17, 4294967295)]
        self.assertFalse(any(map(accepts, everyone)))
        self.assertTrue(accepts(UNIXAddress("/x")))
        directory.mkdir()
        EnclaveRecord(17, "x", "/x.eif", "ab", 1.0).write(directory)
        self.assertEqual([peer.cid for peer in everyone if accepts(peer)], [17])
        EnclaveRecord(16, "x", "/x.eif", "ab", 1.0).write(directory)
        self.assertEqual([peer.cid for peer in everyone if accepts(peer)], [16])
        remove_record(directory)
        self.assertFalse(any(map(accepts, everyone)))

    def test_slack(self) -> None:
        """Between our own hops there is room for what they add, so that what one lets in the next does not refuse."""
        settings = Settings(limits=Limits(header_bytes=8192))
        outer, inner = listener_settings(settings).limits, listener_settings(settings, slack=HOP_FIELDS).limits
        self.assertEqual((outer.target_bytes, outer.header_bytes, outer.header_count), (8192, 8192, 100))
        self.assertGreaterEqual(inner.header_count, outer.header_count + 5)
        self.assertGreaterEqual(inner.header_bytes, outer.header_bytes + 1024)
        self.assertGreaterEqual(inner.target_bytes, outer.target_bytes + 1024, "path form becomes absolute form")
        self.assertEqual(pool_settings(settings.limits, HOP_FIELDS).limits, inner)

    def test_patience(self) -> None:
        """The nearer a hop is to the destination the less it waits; no hop waits longer than is configured."""
        limits = Limits(connect_timeout=10.0, response_timeout={"*": 60.0, "api.example:443": 900.0})
        settings = Settings(limits=limits)
        gateway = listener_settings(settings)
        enclave = listener_settings(settings, patience=ENCLAVE_PATIENCE)
        relay = relay_settings(settings)
        self.assertEqual(gateway.connect_timeout, 10.0)
        self.assertTrue(relay.connect_timeout < enclave.connect_timeout < gateway.connect_timeout)
        for host, seconds in (("a.example", 60.0), ("api.example", 900.0)):
            waits = [hop.exchange.response_timeout.of(host, 443) for hop in (gateway, enclave)]
            self.assertEqual(waits, [seconds, seconds * ENCLAVE_PATIENCE])
        self.assertEqual(gateway.idle_timeout, enclave.idle_timeout)
        pool = pool_settings(settings.limits, patience=ENCLAVE_PATIENCE)
        self.assertEqual(pool.connect_timeout, enclave.connect_timeout)

    def test_response_timeouts(self) -> None:
        """Seconds for all destinations, or by pattern; a destination that no pattern matches has the default."""
        for given, expected in (
            (7.0, (7.0, 7.0)),
            ({"*.example:443": 7.0}, (7.0, 300.0)),
            ({"*": 5.0, "*.example:443": 7.0}, (7.0, 5.0)),
            ({}, (300.0, 300.0)),
        ):
            by_pattern = response_timeouts(Limits(response_timeout=given))
            self.assertEqual((by_pattern.of("a.example", 443), by_pattern.of("b.test", 443)), expected)

    def test_relay_outlasts_the_enclave(self) -> None:
        """The relay's tunnels carry what waits in the enclave: they bear more silence than any of its timeouts."""
        for limits in (
            Limits(response_timeout=10.0, idle_timeout=2.0, tunnel_timeout=3.0),
            Limits(response_timeout={"*": 10.0, "api.example:443": 9000.0}),
            Limits(response_timeout={"api.example:443": 1.0}, tunnel_timeout=1.0, idle_timeout=1.0),
            Limits(idle_timeout=9000.0),
        ):
            settings = Settings(limits=limits)
            relay, enclave = relay_settings(settings), listener_settings(settings)
            for host in ("api.example", "a.example"):
                carried = relay.tunnel_times(host, 443)
                exchange = enclave.exchange
                longest = max(exchange.response_timeout.of(host, 443), exchange.idle_timeout, exchange.tunnel_timeout)
                self.assertGreater(min(carried.silent, carried.unanswered), longest)
                self.assertEqual(carried.idle, limits.idle_timeout)

    def test_idle(self) -> None:
        """A pool gives a connection up before the next hop does."""
        limits = Settings().limits
        self.assertLess(pool_settings(limits).idle_timeout, limits.idle_timeout)


class GatewayServerTests(SynchronousTestCase):
    """A socket that systemd holds for the gateway."""

    def place(self, environment: str) -> str:
        """What a process says that has the third descriptor and *environment*, assignments for a shell."""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            self.port = listening.getsockname()[1]
            script = f'exec 3<&{listening.fileno()}; export {environment}; exec "$0" -c "$1"'
            command = ["bash", "-c", script, sys.executable, _PLACE]
            done = subprocess.run(
                command, cwd=ROOT, pass_fds=[listening.fileno()], capture_output=True, text=True, check=True
            )
        return done.stdout.strip()

    def test_activated(self) -> None:
        """A socket of that name from systemd is taken, although Twisted has read and removed what says so by then."""
        place = self.place("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=gateway")
        self.assertEqual(place, f"systemd's socket 127.0.0.1:{self.port}")

    def test_not_ours(self) -> None:
        """A socket of another name, or for another process, is left alone."""
        for environment in (
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=other",
            "LISTEN_PID=1 LISTEN_FDS=1 LISTEN_FDNAMES=gateway",
            "NOTHING=1",
        ):
            self.assertEqual(self.place(environment), "127.0.0.1:8080")
