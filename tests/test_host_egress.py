"""What the relay makes of a request."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host.dial import CheckedEndpoint, Resolver
from nitroproxy.host.egress import EgressRouter
from nitroproxy.policy import AddressGuard, Policy
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.route import Dial, Local
from tests.wire import record, request


class EgressTests(SynchronousTestCase):
    """The relay's routing."""

    def test_routes(self) -> None:
        """It dials what CONNECT names, within policy, and does nothing else."""
        reactor, site = MemoryReactorClock(), Site(Resource())
        policy = Policy(["*:443", "*:80"], ["bad.example:*"])
        router = EgressRouter(reactor, cast(Any, None), policy, Deadlines(reactor), 5.0, site)
        self.assertEqual(router.route(request(b"GET", b"/health"), record()), Local(site))
        route = router.route(request(b"CONNECT", b"a.example:443"), record())
        assert isinstance(route, Dial)
        self.assertIsInstance(route.endpoint_for([]), CheckedEndpoint)
        for method, target, kind in (
            (b"CONNECT", b"bad.example:443", Kind.DESTINATION_DENIED),
            (b"CONNECT", b"a.example:22", Kind.DESTINATION_NOT_ALLOWED),
            (b"GET", b"https://a.example/", Kind.METHOD_NOT_ALLOWED),
        ):
            refused = self.assertRaises(ProxyError, router.route, request(method, target), record())
            self.assertIs(refused.kind, kind)

    def test_tunnels(self) -> None:
        """A tunnel may be where a new one might: by its name and port, and by the address that was dialled."""
        reactor = MemoryReactorClock()
        deadlines, guard = Deadlines(reactor), AddressGuard(["10.1.0.0/16"], lambda: ["192.0.43.7"])
        resolver = Resolver(cast(Any, None), guard, deadlines, 5.0)
        policy = Policy(["*:443"], ["bad.example:*"])
        router = EgressRouter(reactor, resolver, policy, deadlines, 5.0, Site(Resource()))
        for host, port, address, kind in (
            ("a.example", 443, "192.0.43.8", None),
            ("a.example", 443, "10.1.0.1", None),
            ("a.example", 443, "10.2.0.1", Kind.ADDRESS_DENIED),
            ("a.example", 443, "192.0.43.7", Kind.ADDRESS_DENIED),
            ("bad.example", 443, "192.0.43.8", Kind.DESTINATION_DENIED),
            ("a.example", 80, "192.0.43.8", Kind.DESTINATION_NOT_ALLOWED),
        ):
            noted = record()
            noted.host, noted.port = host, port
            try:
                router.check_tunnel(noted, IPv4Address("TCP", address, port))
            except ProxyError as error:
                self.assertIs(error.kind, kind)
            else:
                self.assertIsNone(kind)
