"""How the enclave proxy routes a request, and how it reaches the destination (`router` and `dialer`)."""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from nitroproxy.enclave.dialer import Dialer
from nitroproxy.enclave.router import EnclaveRouter, enclave_root
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.policy import Policy
from nitroproxy.proxy.connect_endpoint import ConnectEndpoint
from nitroproxy.proxy.route import Dial, Forward, Local
from nitroproxy.target import Origin
from nitroproxy.tls.client import TLSClient
from nitroproxy.tls.settings import TLSSettings
from tests.wire import OneHop, WaitingEndpoint, record, request


class CloseIdleTests(SynchronousTestCase):
    """``POST /close-idle``, as a relay that stops sends it."""

    def test_post(self) -> None:
        """It is passed on and answered 204; any other method does nothing."""
        asked: list[None] = []
        nothing: Any = None
        site = Site(enclave_root(nothing, nothing, lambda: asked.append(None)))
        client = OneHop(lambda request: Local(site)).client()
        for method, status, count in ((b"GET", b"405", 0), (b"POST", b"204", 1)):
            client.receive(method + b" /close-idle HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            self.assertEqual((client.take().split(b" ")[1], len(asked)), (status, count))


class EnclaveRouterTests(SynchronousTestCase):
    """The enclave proxy's routing."""

    def setUp(self) -> None:
        self.pool, self.site = OneHop().pool, Site(Resource())
        tls = TLSClient(TLSSettings())
        self.dialer = Dialer(WaitingEndpoint(), tls)

    def router(self, *, allow_plaintext: bool) -> EnclaveRouter:
        """A router with a policy."""
        policy = Policy(["*:443", "*:80"], ["bad.example:*"])
        return EnclaveRouter(policy, self.pool, self.dialer, self.site, allow_plaintext=allow_plaintext)

    def test_routes(self) -> None:
        """It forwards to the destination itself, in origin form, within policy."""
        router = self.router(allow_plaintext=False)
        self.assertEqual(router.route(request(b"GET", b"/health"), record()), Local(self.site))
        pages = Local(self.site, query=True)
        self.assertEqual(router.route(request(b"GET", b"/enclave/attestation?nonce=00"), record()), pages)
        for target in (b"https://a.example/x?y", b"/https://a.example/x?y"):
            expected = Forward(self.pool, Origin("https", "a.example", 443), b"/x?y", b"a.example")
            self.assertEqual(router.route(request(b"GET", target), record()), expected)
        self.assertIsInstance(router.route(request(b"CONNECT", b"a.example:443"), record()), Dial)

    def test_refusals(self) -> None:
        """A destination that the policy does not allow is refused in every form, and noted in the record."""
        for method, target, kind in (
            (b"GET", b"https://bad.example/", Kind.DESTINATION_DENIED),
            (b"GET", b"/https://bad.example/", Kind.DESTINATION_DENIED),
            (b"CONNECT", b"bad.example:443", Kind.DESTINATION_DENIED),
            (b"CONNECT", b"a.example:22", Kind.DESTINATION_NOT_ALLOWED),
            (b"GET", b"http://a.example/", Kind.PLAINTEXT_DESTINATION),
        ):
            noted = record()
            route = self.router(allow_plaintext=False).route
            self.assertIs(self.assertRaises(ProxyError, route, request(method, target), noted).kind, kind)
            self.assertTrue(noted.host.endswith(".example"))

    def test_tunnels(self) -> None:
        """A tunnel may stay where a new one would be allowed; the address is the relay's and does not matter."""
        before = self.router(allow_plaintext=True)
        relay = UNIXAddress("/relay.sock")
        for method, target, kind in (
            (b"CONNECT", b"a.example:443", None),
            (b"CONNECT", b"bad.example:443", Kind.DESTINATION_DENIED),
            (b"GET", b"https://a.example/", None),
            (b"GET", b"http://a.example/", Kind.PLAINTEXT_DESTINATION),
        ):
            noted = record()
            with contextlib.suppress(ProxyError):
                before.route(request(method, target), noted)
            try:
                self.router(allow_plaintext=False).check_tunnel(noted, relay)
            except ProxyError as error:
                self.assertIs(error.kind, kind)
            else:
                self.assertIsNone(kind)

    def test_plaintext(self) -> None:
        """Plaintext is sent only where it is allowed, and then through the relay like everything else."""
        route = self.router(allow_plaintext=True).route(request(b"GET", b"http://a.example/"), record())
        assert isinstance(route, Forward)
        self.assertIsInstance(self.dialer.endpoint_for(route.key, []), ConnectEndpoint)
        secure = self.dialer.endpoint_for(Origin("https", "a.example", 443), [])
        self.assertNotIsInstance(secure, ConnectEndpoint)
