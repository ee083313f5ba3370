"""What a role decides: `nitroproxy.proxy.route`."""

from __future__ import annotations

from typing import get_args

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from nitroproxy.proxy.route import Dial, Forward, Local, Route
from tests.wire import GET, OneHop, WaitingEndpoint, split_head

ANSWER = b"HTTP/1.1 502 No\r\nProxy-Status: nitroproxy-relay; error=dns_error\r\nContent-Length: 0\r\n\r\n"


class RouteTests(SynchronousTestCase):
    """The values."""

    def test_kinds(self) -> None:
        """There are three kinds of route, and `dispatch` knows them all."""
        self.assertEqual(set(get_args(Route)), {Forward, Dial, Local})

    def test_frozen(self) -> None:
        """Routes are values: what a router has decided stays as it is."""
        endpoint = WaitingEndpoint()
        for route, name in (
            (Forward(OneHop().pool, "next", b"/", b"a"), "target"),
            (Dial(lambda identity: endpoint), "endpoint_for"),
            (Local(Site(Resource())), "site"),
        ):
            self.assertRaises(AttributeError, setattr, route, name, None)

    def test_target_and_host(self) -> None:
        """What is sent on is the route's target and Host, whatever the client's request said."""
        pool = OneHop()
        hop = OneHop(lambda request: Forward(pool.pool, "next", b"/other?x", b"other.example"))
        hop.client().receive(GET)
        start, headers, _ = split_head(pool.endpoint.accept().take())
        self.assertEqual((start, headers[b"host"]), (b"GET /other?x HTTP/1.1", b"other.example"))

    def test_distrusted_unless_ours(self) -> None:
        """Without a word to the contrary the next hop is a destination, whose Proxy-Status is not noted."""
        for ours, noted in ((False, None), (True, ("nitroproxy-relay", "dns_error"))):
            pool = OneHop()
            seen: list[object] = []
            hop = OneHop(lambda request, ours=ours, pool=pool: Forward(pool.pool, "n", b"/", b"a", ours=ours))  # type: ignore[misc]
            hop.factory.observer.ended = lambda record, now, seen=seen: seen.append(record.passed_on)  # type: ignore[method-assign, misc]
            hop.client().receive(GET)
            pool.endpoint.accept().receive(ANSWER)
            self.assertEqual(seen, [noted])
