"""What identifies a request from hop to hop."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.http1.messages import Fields, Request
from nitroproxy.proxy.trace import request_id_of, trace_headers, traceparent_of

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def with_header(name: bytes, value: bytes) -> Request:
    """A request with one header."""
    return Request(b"GET", b"/", Fields([(name, value)]))


class TraceTests(SynchronousTestCase):
    """Ids and trace contexts."""

    def test_request_id(self) -> None:
        """A usable id is kept; one that could break a log or a header is replaced, each time by another."""
        self.assertEqual(request_id_of(with_header(b"X-Request-ID", b"a.B-9_")), b"a.B-9_")
        for bad in (b"", b"a b", b"a\tb", b"x" * 65, b"\xff", b'"'):
            self.assertRegex(request_id_of(with_header(b"X-Request-Id", bad)), rb"^[0-9a-f]{12}-[0-9a-f]+$")
        self.assertNotEqual(
            request_id_of(Request(b"GET", b"/", Fields())), request_id_of(Request(b"GET", b"/", Fields()))
        )

    def test_traceparent(self) -> None:
        """A valid context is kept; otherwise one is made if that is asked for, and none if not."""
        self.assertEqual(traceparent_of(with_header(b"TraceParent", PARENT), make=False), PARENT)
        for bad in (
            b"",
            PARENT.upper(),
            PARENT[:-1],
            PARENT.replace(b"00f067aa0ba902b7", b"0" * 16),
            b"ff" + PARENT[2:],
        ):
            self.assertEqual(traceparent_of(with_header(b"traceparent", bad), make=False), b"")
            self.assertRegex(traceparent_of(with_header(b"traceparent", bad), make=True), rb"^00-[0-9a-f]{32}-")

    def test_headers(self) -> None:
        """The next hop is told the id always, the context if there is one."""
        self.assertEqual(trace_headers(b"i", b""), [(b"X-Request-Id", b"i")])
        self.assertEqual(trace_headers(b"i", PARENT), [(b"X-Request-Id", b"i"), (b"traceparent", PARENT)])
