"""What each role makes of a request: gateway, enclave proxy and relay."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from nitroproxy.enclave.dialer import Dialer
from nitroproxy.enclave.router import EnclaveRouter
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host.dial import CheckedEndpoint
from nitroproxy.host.egress import EgressRouter
from nitroproxy.host.gateway import ENCLAVE, GatewayRouter
from nitroproxy.http1.messages import Request
from nitroproxy.policy import Policy
from nitroproxy.proxy.connect import ConnectEndpoint
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.route import Dial, Forward, Local, Router
from nitroproxy.target import Target
from nitroproxy.tls import TLSClient
from tests.wire import OneHop, WaitingEndpoint


def request(method: bytes, target: bytes) -> Request:
    """A request with a Host that no router may believe."""
    return Request(method, target, [(b"Host", b"liar.example")])


class RouterTests(SynchronousTestCase):
    """The three routers."""

    def setUp(self) -> None:
        self.pool = OneHop().pool
        self.site = Site(Resource())
        self.far = WaitingEndpoint()
        self.policy = Policy(["*:443", "*:80"], ["bad.example:*"])

    def refusal(self, router: Router, method: bytes, target: bytes) -> Kind:
        return self.assertRaises(ProxyError, router.route, request(method, target)).kind

    def local_pages(self, router: Router) -> None:
        self.assertEqual(router.route(request(b"GET", b"/health")), Local(self.site))

    def test_gateway(self) -> None:
        """The gateway forwards what names a destination in absolute form, and leaves policy to the enclave."""
        router = GatewayRouter(self.pool, self.far, self.site)
        self.local_pages(router)
        expected = Forward(self.pool, ENCLAVE, b"https://bad.example/x?y", b"bad.example")
        self.assertEqual(router.route(request(b"GET", b"/https://bad.example/x?y")), expected)
        self.assertEqual(router.route(request(b"POST", b"https://bad.example/x?y")), expected)
        route = router.route(request(b"CONNECT", b"a.example:443"))
        assert isinstance(route, Dial)
        self.assertIsInstance(route.endpoint, ConnectEndpoint)
        self.assertIs(self.refusal(router, b"GET", b"/https://127.1/"), Kind.INVALID_TARGET)

    def enclave(self, *, allow_plaintext: bool) -> EnclaveRouter:
        tls = TLSClient(min_version="TLSv1.3", verify=True, ca_file=None)
        self.dialer = Dialer(MemoryReactorClock(), self.far, tls, 5.0)
        return EnclaveRouter(self.policy, self.pool, self.dialer, self.site, allow_plaintext=allow_plaintext)

    def test_enclave(self) -> None:
        """The enclave forwards to the destination itself, in origin form, within policy."""
        router = self.enclave(allow_plaintext=False)
        self.local_pages(router)
        for target in (b"https://a.example/x?y", b"/https://a.example/x?y"):
            expected = Forward(self.pool, Target("https", "a.example", 443, b""), b"/x?y", b"a.example")
            self.assertEqual(router.route(request(b"GET", target)), expected)
        for method, target in ((b"GET", b"https://bad.example/"), (b"CONNECT", b"bad.example:443")):
            self.assertIs(self.refusal(router, method, target), Kind.DESTINATION_DENIED)
        self.assertIs(self.refusal(router, b"CONNECT", b"a.example:22"), Kind.DESTINATION_DENIED)
        self.assertIs(self.refusal(router, b"GET", b"http://a.example/"), Kind.PLAINTEXT_DESTINATION)
        self.assertIsInstance(router.route(request(b"CONNECT", b"a.example:443")), Dial)

    def test_plaintext(self) -> None:
        """Plaintext goes only where it was allowed, and then through the relay like everything else."""
        route = self.enclave(allow_plaintext=True).route(request(b"GET", b"http://a.example/"))
        assert isinstance(route, Forward)
        self.assertIsInstance(self.dialer.endpoint_for(route.key), ConnectEndpoint)
        secure = self.dialer.endpoint_for(Target("https", "a.example", 443, b""))
        self.assertNotIsInstance(secure, ConnectEndpoint)

    def test_relay(self) -> None:
        """The relay dials what CONNECT names, within policy, and does nothing else."""
        reactor = MemoryReactorClock()
        deadlines = Deadlines(reactor)
        router = EgressRouter(reactor, cast(Any, None), self.policy, deadlines, 5.0, self.site)
        self.local_pages(router)
        route = router.route(request(b"CONNECT", b"a.example:443"))
        assert isinstance(route, Dial)
        self.assertIsInstance(route.endpoint, CheckedEndpoint)
        self.assertIs(self.refusal(router, b"CONNECT", b"bad.example:443"), Kind.DESTINATION_DENIED)
        self.assertIs(self.refusal(router, b"GET", b"https://a.example/"), Kind.METHOD_NOT_ALLOWED)
