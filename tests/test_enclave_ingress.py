"""Tests of `nitroproxy.enclave.ingress`: where requests from outside go."""

from __future__ import annotations

from twisted.internet.address import UNIXAddress
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from nitroproxy.enclave.ingress import APPLICATION, Application, IngressRouter
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Request
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.route import Forward, Local, Route
from tests.wire import OneHop, record, request

#: Every form that names a destination, and one that only just does.
PROXY_FORMS = (
    (b"GET", b"https://a.example/"),
    (b"GET", b"http://127.0.0.1:8080/enclave/random"),
    (b"POST", b"/https://a.example/"),
    (b"GET", b"/https:/a.example/"),
    (b"GET", b"/HTTPS://a.example/"),
    (b"GET", b"/https%3A//a.example/"),
    (b"CONNECT", b"a.example:443"),
)


class IngressTests(SynchronousTestCase):
    """The router, with an application and a proxy or without."""

    def setUp(self) -> None:
        self.hop = OneHop()
        self.site = Site(Resource())
        self.application = Application(self.hop.pool, ("127.0.0.1", 8000))
        self.asked: list[Request] = []
        self.tunnels: list[Record] = []

    def route(self, request: Request, record: Record) -> Route:
        """As the proxy."""
        self.asked.append(request)
        return Forward(self.hop.pool, "proxied", request.target, b"proxied")

    def check_tunnel(self, record: Record, address: object) -> None:
        """As the proxy."""
        self.tunnels.append(record)

    def router(self, *, application: bool = True, proxy: bool = True) -> IngressRouter:
        return IngressRouter(self.site, self.application if application else None, self if proxy else None)

    def kind(self, router: IngressRouter, asked: Request, noted: Record) -> Kind:
        error: ProxyError = self.assertRaises(ProxyError, router.route, asked, noted)
        return error.kind

    def test_application(self) -> None:
        """What names no destination goes to the application, as it is and with the client's Host."""
        for proxy in (True, False):
            for method, target in (
                (b"GET", b"/"),
                (b"POST", b"/a?b=c"),
                (b"GET", b"/health"),
                (b"GET", b"/metrics"),
                (b"GET", b"/enclave/random"),
                (b"PUT", b"/enclave/attestation/user-data"),
                (b"GET", b"//enclave/attestation"),
                (b"OPTIONS", b"*"),
            ):
                noted = record()
                route = self.router(proxy=proxy).route(request(method, target), noted)
                expected = Forward(self.hop.pool, APPLICATION, target, b"liar.example", application=True)
                self.assertEqual(route, expected)
                self.assertEqual((noted.host, noted.port), ("127.0.0.1", 8000))
        self.assertEqual(self.asked, [])

    def test_attestation(self) -> None:
        """The page about attestation is ours, whatever the method."""
        for method in (b"GET", b"POST", b"PUT"):
            asked = request(method, b"/enclave/attestation?nonce=00")
            self.assertEqual(self.router().route(asked, record()), Local(self.site, query=True))

    def test_no_application(self) -> None:
        """Without one there is that page, and nothing else."""
        for target in (b"/", b"/health", b"/enclave/random"):
            route = self.router(application=False).route(request(b"GET", target), record())
            self.assertEqual(route, Local(self.site))

    def test_no_proxy(self) -> None:
        """Where nobody may use the proxy, its forms are refused, or are paths of the application's like any other."""
        for method, target in PROXY_FORMS:
            noted = record()
            noted.certified = True
            router = self.router(proxy=False)
            if target.startswith(b"/"):
                route = router.route(request(method, target), noted)
                self.assertIs(type(route), Forward)
                self.assertEqual(route.key, APPLICATION)  # type: ignore[union-attr]
            else:
                self.assertIs(self.kind(router, request(method, target), noted), Kind.PEER_DENIED)

    def test_not_certified(self) -> None:
        """A client without a certificate cannot use the proxy in any form."""
        for method, target in PROXY_FORMS:
            self.assertIs(self.kind(self.router(), request(method, target), record()), Kind.PEER_DENIED, target)
        self.assertEqual(self.asked, [])

    def test_certified(self) -> None:
        """One with a certificate can, and reaches the application too."""
        for method, target in PROXY_FORMS:
            noted = record()
            noted.certified = True
            route = self.router().route(request(method, target), noted)
            self.assertEqual(route.key, "proxied")  # type: ignore[union-attr]
        self.assertEqual(len(self.asked), len(PROXY_FORMS))
        noted = record()
        noted.certified = True
        self.assertEqual(self.router().route(request(b"GET", b"/"), noted).key, APPLICATION)  # type: ignore[union-attr]

    def test_tunnels(self) -> None:
        """A tunnel to the application may be, one through the proxy for who has a certificate, as the policy allows."""
        address = UNIXAddress("/x")
        noted = record()
        self.router().route(request(b"GET", b"/socket"), noted)
        self.router().check_tunnel(noted, address)
        self.assertEqual(self.tunnels, [])
        noted = record()
        noted.scheme, noted.host, noted.port = "http", "127.0.0.1", 8000
        error = self.assertRaises(ProxyError, self.router().check_tunnel, noted, address)
        self.assertIs(error.kind, Kind.PEER_DENIED)
        noted.certified = True
        self.router().check_tunnel(noted, address)
        self.assertEqual(self.tunnels, [noted])
        self.assertRaises(ProxyError, self.router(proxy=False).check_tunnel, noted, address)
