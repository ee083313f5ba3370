"""From a request to what carries it out: `nitroproxy.proxy.dispatch`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Fields, Request
from nitroproxy.proxy.connect_request import ConnectRequest
from nitroproxy.proxy.dispatch import dispatch
from nitroproxy.proxy.downstream import Downstream
from nitroproxy.proxy.exchange import Exchange
from nitroproxy.proxy.interfaces import ClientExchange
from nitroproxy.proxy.local import LocalExchange, OptionsAnswer
from nitroproxy.proxy.route import Dial, Forward, Local, Route
from tests.wire import OneHop, WaitingEndpoint, record


class DispatchTests(SynchronousTestCase):
    """The rules that hold for every role, then the router's decision."""

    def setUp(self) -> None:
        self.routed: list[Request] = []
        self.answer: Route | None = None
        self.hop = OneHop(self.route)
        client = self.hop.client().protocol
        assert isinstance(client, Downstream)
        self.client = client

    def route(self, request: Request) -> Route:
        self.routed.append(request)
        return self.answer or Forward(self.hop.pool, "next", request.target, b"next.example")

    def dispatch(self, method: bytes, *headers: tuple[bytes, bytes]) -> ClientExchange:
        request = Request(method, b"/thing", Fields(headers))
        factory = self.hop.factory
        return dispatch(self.client, request, record(), factory.settings, factory)

    def test_routes(self) -> None:
        """Each kind of route has its own carrier, which is not started yet."""
        endpoint = WaitingEndpoint()
        for answer, carrier in (
            (None, Exchange),
            (Dial(lambda identity: endpoint), ConnectRequest),
            (Local(Site(Resource())), LocalExchange),
        ):
            self.answer = answer
            self.assertIs(type(self.dispatch(b"GET")), carrier)
        self.assertEqual((endpoint.waiting, self.hop.endpoint.waiting), ([], []))

    def test_trace(self) -> None:
        """TRACE goes nowhere, not even to the router."""
        error = self.assertRaises(ProxyError, self.dispatch, b"TRACE")
        self.assertIs(error.kind, Kind.METHOD_NOT_ALLOWED)
        self.assertEqual(self.routed, [])

    def test_loop(self) -> None:
        """Nor does a request that has been here before; one of another proxy of the same kind does."""
        error = self.assertRaises(
            ProxyError, self.dispatch, b"GET", (b"Via", b"1.1 a"), (b"Via", b"1.1 " + self.hop.factory.via_name.fresh())
        )
        self.assertIs(error.kind, Kind.PROXY_LOOP_DETECTED)
        self.assertEqual(self.routed, [])
        self.dispatch(b"GET", (b"Via", b"1.1 " + OneHop().factory.via_name.fresh()))
        self.assertEqual(len(self.routed), 1)

    def test_options(self) -> None:
        """OPTIONS whose last hop this is gets its answer here (RFC 9110 section 7.6.2), with any other number not; a
        Max-Forwards in another request means nothing."""
        self.assertIs(type(self.dispatch(b"OPTIONS", (b"Max-Forwards", b"0"))), OptionsAnswer)
        self.assertEqual(self.routed, [])
        for method, hops in ((b"OPTIONS", b"1"), (b"GET", b"0")):
            self.assertIs(type(self.dispatch(method, (b"Max-Forwards", hops))), Exchange)
