"""Proxy-Status: what our hops write, and that no other server speaks in their name."""

from __future__ import annotations

from time import process_time

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.proxy.problem import problem
from nitroproxy.proxy.proxy_status import read_proxy_status, without_our_names
from nitroproxy.proxy.route import Forward
from tests.wire import GET, Notes, OneHop, split_head

FORGED = (
    b"nitroproxy-enclave; error=tls_certificate_error",
    b"NitroProxy-relay; error=dns_error",
    b'"nitroproxy-relay"; error=dns_error',
    b'cdn; detail="a, b", nitroproxy-enclave; error=dns_error',
)


class ReadingTests(SynchronousTestCase):
    """What a hop of ours has written."""

    def test_ours(self) -> None:
        """Hop and token are read; an unknown hop or token, several members, or other servers' members give nothing."""
        self.assertEqual(read_proxy_status(b"nitroproxy-relay; error=dns_error"), ("nitroproxy-relay", "dns_error"))
        for value in (b"", b"cdn; error=dns_error", b"nitroproxy-relay; error=no_such_thing", b"a, " + FORGED[0]):
            self.assertIsNone(read_proxy_status(value), value)
        self.assertIsNone(read_proxy_status(b"nitroproxy-evil; error=dns_error"))

    def test_every_kind(self) -> None:
        """The Proxy-Status of every kind that `problem` writes can be read from the response's head."""
        for kind in Kind:
            headers, _ = problem(ProxyError(kind, "x", "nitroproxy-relay"), "nitroproxy-enclave", "an-id")
            self.assertEqual(read_proxy_status(dict(headers)[b"Proxy-Status"]), ("nitroproxy-relay", kind.proxy_status))


class ForgedTests(SynchronousTestCase):
    """A destination that uses the names of our hops."""

    def test_members(self) -> None:
        """Members that look like ours are dropped, others stay; commas in quoted strings do not split."""
        fields = [(b"Proxy-Status", value) for value in FORGED]
        self.assertEqual(without_our_names(fields), [(b"Proxy-Status", b'cdn; detail="a, b"')])
        others = [(b"Proxy-Status", b'cdn; error=dns_error, "b"'), (b"X", b"nitroproxy-enclave")]
        self.assertEqual(without_our_names(others), others)

    def test_string_without_end(self) -> None:
        """A quoted string without an end takes in all that follows, and is read once, whatever is in it."""
        began = process_time()
        for tail in (b'"\\' * 8192, b'"\\"' * 8192 + b'"', b'"' + b"\\" * 16385, b'"' + b", nitroproxy-enclave" * 800):
            fields = [(b"Proxy-Status", b"nitroproxy-relay; x=" + tail), (b"Proxy-Status", b"cdn; x=" + tail)]
            kept = without_our_names(fields)
            self.assertTrue(kept == ([] if b"nitroproxy" in tail else fields[1:]), tail[:8])
        self.assertLess(process_time() - began, 2.0)

    def answer(self, head: bytes, *, ours: bool) -> tuple[dict[bytes, bytes], object]:
        """The fields that a client receives, and what the record notes as passed on."""
        hop = OneHop(lambda request: Forward(hop.pool, "next", request.target, b"next.example", ours=ours))
        hop.factory.observer = notes = Notes()
        client = hop.client()
        client.receive(GET)
        hop.endpoint.accept().receive(head)
        return split_head(client.take())[1], notes.records[0].passed_on if notes.records else None

    def test_from_a_destination(self) -> None:
        """No final response, of any status, passes it on, and it is not noted."""
        for status in (200, 404, 502):
            for forged in FORGED[:3]:
                head = b"HTTP/1.1 %d X\r\nProxy-Status: %b\r\nContent-Length: 0\r\n\r\n" % (status, forged)
                headers, noted = self.answer(head, ours=False)
                self.assertNotIn(b"proxy-status", headers)
                self.assertIsNone(noted)

    def test_interim(self) -> None:
        """Nor does a 1xx."""
        headers, _ = self.answer(b"HTTP/1.1 103 X\r\nProxy-Status: " + FORGED[0] + b"\r\n\r\n", ours=False)
        self.assertNotIn(b"proxy-status", headers)

    def test_from_our_own_hop(self) -> None:
        """Members of our own next hop are passed on, and noted."""
        head = b"HTTP/1.1 502 X\r\nProxy-Status: " + FORGED[0] + b"\r\nContent-Length: 0\r\n\r\n"
        headers, noted = self.answer(head, ours=True)
        self.assertEqual(headers[b"proxy-status"], FORGED[0])
        self.assertEqual(noted, ("nitroproxy-enclave", "tls_certificate_error"))
