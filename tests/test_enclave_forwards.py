"""Where the connections of a forward go. With traffic: `test_chain_forwards`."""

from __future__ import annotations

from twisted.internet.address import UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.ends import EnclaveForward
from nitroproxy.enclave.dialer import Dialer
from nitroproxy.enclave.forwards import ForwardRouter, forward_routers
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.policy import Policy
from nitroproxy.proxy.connect_endpoint import ConnectEndpoint
from nitroproxy.proxy.route import Dial
from nitroproxy.target import Origin
from nitroproxy.tls.client import TLSClient
from nitroproxy.tls.settings import TLSSettings
from tests.wire import WaitingEndpoint, record, request


class ForwardRouterTests(SynchronousTestCase):
    """Where the connections of a forward go."""

    def setUp(self) -> None:
        self.relay = WaitingEndpoint()
        self.tls = TLSClient(TLSSettings(), protocols=())
        self.dialer = Dialer(self.relay, self.tls)

    def router(self, host: str, tls: TLSClient | None = None) -> ForwardRouter:
        """A router to *host*."""
        return ForwardRouter(Policy(["*:5432"], ["bad.example:*"]), self.dialer, Origin("https", host, 5432), tls)

    def test_destination(self) -> None:
        """Whatever comes goes to the one destination, through the relay, as it is or in TLS."""
        for tls, kind in ((None, ConnectEndpoint), (self.tls, type(self.tls.wrap(self.relay, "a.example", 1)))):
            noted = record()
            route = self.router("db.example", tls).route(request(b"CONNECT", b""), noted)
            assert isinstance(route, Dial)
            self.assertIsInstance(route.endpoint_for([]), kind)
            self.assertEqual((noted.host, noted.port), ("db.example", 5432))

    def test_policy(self) -> None:
        """The policy is asked for each connection, and for those that there are."""
        router, noted = self.router("bad.example"), record()
        error = self.assertRaises(ProxyError, router.route, request(b"CONNECT", b""), noted)
        self.assertIs(error.kind, Kind.DESTINATION_DENIED)
        self.assertRaises(ProxyError, router.check_tunnel, noted, UNIXAddress(b""))

    def test_tls(self) -> None:
        """What starts TLS is made once, and only where a forward needs it."""
        made: list[TLSClient] = []

        def make() -> TLSClient:
            made.append(self.tls)
            return self.tls

        plain = EnclaveForward("127.0.0.1:1", "a.example:5432")
        secure = EnclaveForward("127.0.0.1:2", "b.example:5432", tls=True)
        for forwards, count in (((), 0), ((plain,), 0), ((plain, secure, secure), 1)):
            made.clear()
            routers = forward_routers(forwards, Policy(["*:*"], []), self.dialer, make)
            self.assertEqual((len(routers), len(made)), (len(forwards), count))
