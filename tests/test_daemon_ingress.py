"""The listeners of the section ingress in both daemons. What they do with traffic: `test_chain_ingress`."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet import endpoints
from twisted.internet.address import IPv4Address
from twisted.python.systemd import ListenFDs
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.ends import Transport
from nitroproxy.config.schema import Settings
from nitroproxy.config.traffic import Ingress, IngressForward, Limits
from nitroproxy.daemon.ingress import HOP, outside_servers
from nitroproxy.daemon.role import Role
from nitroproxy.enclave.components import EnclaveRole
from nitroproxy.host.components import HostRole
from nitroproxy.proxy.listener import DownstreamFactory
from nitroproxy.vsock.address import VsockAddress
from tests.roles import FakeReactor, ask_nothing

FORWARDS = (
    IngressForward("0.0.0.0:443", 5444, 443),
    IngressForward("[::1]:8443", 5445, 8443, "both"),
    IngressForward("127.0.0.1:8444", 5446, 8444, "accept"),
)


class IngressTests(SynchronousTestCase):
    """Both daemons, on a reactor that does nothing."""

    def setUp(self) -> None:
        transport = Transport(kind="unix", directory=str(Path(self.mktemp()).absolute()))
        self.settings = Settings(transport=transport, ingress=Ingress(FORWARDS))
        self.reactor: Any = FakeReactor()

    def serving(self, role: Role) -> Any:
        process = role.process(self.reactor, self.settings, 1, None)
        return role.serving(process, self.settings, None, ask_nothing)

    @staticmethod
    def limits(factory: DownstreamFactory) -> tuple[int, int]:
        """The connections that a listener has, and has with others."""
        return factory.settings.connections, factory.settings.together

    def test_order(self) -> None:
        """Each server has its factory, and what comes from outside stops before what its answers may need."""
        for role, stages in (
            (HostRole(), [["nitroproxy-host", HOP, HOP, HOP], ["nitroproxy-relay"]]),
            (EnclaveRole(), [[HOP, HOP, HOP], ["nitroproxy-enclave", "nitroproxy-enclave"]]),
        ):
            servers = role.servers(self.reactor, self.settings)
            self.assertEqual([[server.hop for server in stage] for stage in servers], stages)
            factories = self.serving(role).factories
            self.assertEqual([factory.hop for factory in factories], [hop for stage in stages for hop in stage])

    def test_names(self) -> None:
        """A server is called by its address, in the enclave by its port."""
        [first, *_], _ = HostRole().servers(self.reactor, self.settings), None
        self.assertEqual([server.name for server in first[1:]], ["0.0.0.0:443", "[::1]:8443", "127.0.0.1:8444"])
        ingress, _ = EnclaveRole().servers(self.reactor, self.settings)
        self.assertTrue(ingress[0].name.endswith("/enclave/5444.sock"))

    def test_limits(self) -> None:
        """They have the limits of the configuration, share their places, and a balancer may have all; a reload changes
        the limits."""
        serving = self.serving(HostRole())
        factories = serving.factories[1:4]
        self.assertEqual([factory.settings.peers_are_proxies for factory in factories], [False, True, True])
        self.assertEqual({self.limits(factory) for factory in factories}, {(4000, 5000)})
        changed = msgspec.structs.replace(self.settings, limits=Limits(connections=8))
        serving.prepare(changed)()
        self.assertEqual({self.limits(factory) for factory in factories}, {(8, 10)})
        self.assertEqual([factory.settings.peers_are_proxies for factory in factories], [False, True, True])

    def test_reload_of_the_way(self) -> None:
        """A reload changes the time that there is for the connection to where a forward leads."""
        changed = msgspec.structs.replace(self.settings, limits=Limits(connect_timeout=40.0))
        for role, number, endpoint_of, seconds in (
            (HostRole(), 1, lambda router: router._endpoint._endpoint, (9.0, 36.0)),
            (EnclaveRole(), 0, lambda router: router._endpoint, (9.5, 38.0)),
        ):
            serving = self.serving(role)
            factory = serving.factories[number]
            before = endpoint_of(factory.router)._timeout
            serving.prepare(changed)()
            self.assertEqual((before, endpoint_of(factory.router)._timeout), seconds)

    def test_parent_only(self) -> None:
        """In the enclave the parent alone may connect; on the host anybody."""
        inside, outside = self.serving(EnclaveRole()).factories[0], self.serving(HostRole()).factories[1]
        self.assertTrue(inside.settings.accepts(VsockAddress(3, 77)))
        self.assertFalse(inside.settings.accepts(VsockAddress(4, 77)))
        self.assertTrue(outside.settings.accepts(IPv4Address("TCP", "203.0.113.1", 77)))

    def test_socket_unit(self) -> None:
        """A socket that systemd holds under the forward's name is used instead of the address."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        given = ListenFDs([listener.fileno()], ["ingress-5445"])
        self.patch(endpoints._SystemdParser, "_sddaemon", given)
        names = [server.name for server in outside_servers(self.reactor, self.settings)]
        place = f"systemd's socket 127.0.0.1:{listener.getsockname()[1]}"
        self.assertEqual(names, ["0.0.0.0:443", place, "127.0.0.1:8444"])
        self.assertTrue(os.fstat(listener.fileno()))
