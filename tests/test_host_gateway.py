"""How the gateway routes a request."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host.gateway import ENCLAVE, GatewayRouter
from nitroproxy.proxy.connect_endpoint import ConnectEndpoint
from nitroproxy.proxy.route import Dial, Forward, Local
from tests.wire import OneHop, WaitingEndpoint, record, request


class GatewayTests(SynchronousTestCase):
    """The gateway's routing."""

    def test_routes(self) -> None:
        """It forwards requests that name a destination, in absolute form, and leaves policy to the enclave."""
        pool, site, noted = OneHop().pool, Site(Resource()), record()
        router = GatewayRouter(pool, WaitingEndpoint(), site)
        self.assertEqual(router.route(request(b"GET", b"/health"), noted), Local(site, query=True))
        self.assertEqual((noted.host, noted.port), ("", 0))
        expected = Forward(pool, ENCLAVE, b"https://bad.example/x?y", b"bad.example", ours=True)
        self.assertEqual(router.route(request(b"GET", b"/https://bad.example/x?y"), noted), expected)
        self.assertEqual(router.route(request(b"POST", b"https://bad.example/x?y"), record()), expected)
        self.assertEqual((noted.host, noted.port), ("bad.example", 443))
        target = b"/enclave/attestation?nonce=00"
        page = Forward(pool, ENCLAVE, target, b"localhost", ours=True)
        self.assertEqual(router.route(request(b"GET", target), record()), page)
        for method, local in (
            (b"POST", target),
            (b"PUT", b"/enclave/attestation/user-data"),
            (b"GET", b"/enclave/attestation/user-data"),
            (b"GET", b"/enclave/random"),
            (b"GET", b"/enclave/"),
            (b"GET", b"//enclave/attestation"),
        ):
            self.assertEqual(router.route(request(method, local), record()), Local(site, query=True), local)
        route = router.route(request(b"CONNECT", b"a.example:443"), record())
        assert isinstance(route, Dial)
        self.assertIsInstance(route.endpoint_for([]), ConnectEndpoint)
        refused = self.assertRaises(ProxyError, router.route, request(b"GET", b"/https://127.1/"), record())
        self.assertIs(refused.kind, Kind.INVALID_TARGET)
