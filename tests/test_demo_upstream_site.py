"""The local upstream's web site: its echoes, its counters, and what is left to httpbin."""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Request

from nitroproxy.demo.upstream_site import UpstreamRoot, UpstreamSite


class Catcher(Resource):
    """Stands for httpbin: keeps the headers and the path that it is asked for."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[list[bytes], str | None, str | None]] = []

    def render(self, request: Request) -> bytes:
        """Remember what httpbin would see."""
        lengths = request.getHeader("content-length"), request.getHeader("transfer-encoding")
        self.seen.append((list(request.postpath or []), *lengths))
        return b"caught"


class SiteTests(SynchronousTestCase):
    """The site, on a transport in memory."""

    def setUp(self) -> None:
        """One connection."""
        self.caught = Catcher()
        self.log: list[tuple[str, str, int, int]] = []
        root = UpstreamRoot(self.caught, lambda: {"expired": 7})
        site = UpstreamSite(root, lambda *line: self.log.append(line))
        self.transport = StringTransport()
        self.channel = site.buildProtocol(None)
        self.channel.callLater = reactor_that_never_calls
        self.channel.makeConnection(self.transport)
        self.addCleanup(self.channel.connectionLost, Failure(ConnectionError()))

    def taken(self) -> bytes:
        """What has been written since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def test_an_echo_does_not_wait_for_the_end(self) -> None:
        """Each piece of a body is sent back before the next one has come."""
        self.channel.dataReceived(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n")
        self.assertEqual(self.taken(), b"")
        self.channel.dataReceived(b"abc")
        head, _, body = self.taken().partition(b"\r\n\r\n")
        self.assertIn(b"HTTP/1.1 200 OK\r\n", head)
        self.assertIn(b"Content-Length: 6", head)
        self.assertEqual(body, b"abc")
        self.channel.dataReceived(b"de")
        self.assertEqual(self.taken(), b"de")
        self.channel.dataReceived(b"f")
        self.assertEqual((self.taken(), self.log), (b"f", [("POST", "/echo", 200, 6)]))

    def test_a_chunked_echo_is_chunked(self) -> None:
        """A body of unknown length comes back in chunks, after 100 Continue where that was asked for."""
        self.channel.dataReceived(
            b"POST /echo?x=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        )
        self.assertEqual(self.taken(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.channel.dataReceived(b"3\r\nabc\r\n")
        self.assertEqual(self.taken().partition(b"\r\n\r\n")[2], b"3\r\nabc\r\n")
        self.channel.dataReceived(b"0\r\n\r\n")
        self.assertEqual(self.taken(), b"0\r\n\r\n")

    def test_echoes_follow_each_other_on_one_connection(self) -> None:
        """Pipelined requests each get their own answer, an empty body included."""
        one = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"
        self.channel.dataReceived(one % (1, b"a") + one % (0, b"") + b"GET /get HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(self.taken().count(b"HTTP/1.1 200 OK\r\n"), 3)
        self.assertEqual([line[1] for line in self.log], ["/echo", "/echo", "/get"])

    def test_an_echo_reads_no_faster_than_it_is_read(self) -> None:
        """While the transport takes no more of the answer, the rest of the request is not read."""
        self.channel.dataReceived(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        producer = cast(IPushProducer, self.transport.producer)
        producer.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        producer.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")

    def test_the_counters_are_json(self) -> None:
        """What the bad listeners received can be asked for."""
        self.channel.dataReceived(b"GET /demo/bytes-received HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(json.loads(self.taken().partition(b"\r\n\r\n")[2]), {"expired": 7})

    def test_httpbin_gets_the_whole_path_and_a_length(self) -> None:
        """All other paths are httpbin's; a chunked body, which it would refuse, has its length by then."""
        self.channel.dataReceived(
            b"POST /a/b?q=secret HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        self.assertEqual(self.caught.seen, [([b"a", b"b"], "3", None)])
        self.assertEqual(self.log, [("POST", "/a/b", 200, 6)])


def reactor_that_never_calls(seconds: float, function: object, *arguments: object) -> Any:
    """A `callLater` for tests in which no time passes."""
    return _Never()


class _Never:
    def active(self) -> bool:
        return False

    def cancel(self) -> None:
        return None

    def reset(self, seconds: float) -> None:
        return None
