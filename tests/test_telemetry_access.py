"""The access log, from requests through the engine to events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.http1.messages import Request
from nitroproxy.proxy.record import End, Record
from nitroproxy.proxy.route import Dial, Forward, Route
from nitroproxy.target import parse_target
from nitroproxy.telemetry.access import AccessLog
from nitroproxy.telemetry.logs import EventLog, json_line, text_line
from nitroproxy.vsock.address import VsockAddress
from tests.wire import GET, OneHop, WaitingEndpoint

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def no_target(request: Request) -> Route:
    """A route for requests whose target is refused."""
    parse_target(request.method, request.target)
    raise AssertionError("the target is good")


class AccessTests(SynchronousTestCase):
    """One event for each exchange."""

    def setUp(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.log = EventLog("DEBUG", [self.events.append])
        self.now = 1000.0

    def access_log(self) -> AccessLog:
        return AccessLog("nitroproxy-test", self.log, lambda: self.now)

    def hop(self, route: Any = None) -> OneHop:
        hop = OneHop(route)
        hop.factory.observer = self.access_log()
        return hop

    def access(self) -> Mapping[str, Any]:
        [event] = [event for event in self.events if event["event"] == "access"]
        return event

    def test_answered(self) -> None:
        """Id, method, status, sizes and times; nothing of path, fields or body (S18)."""
        hop = self.hop()
        client = hop.client()
        canary = b"POST /c4n4ry?c4n4ry HTTP/1.1\r\nHost: a\r\nAuthorization: c4n4ry\r\nX-Request-Id: an-id\r\n"
        client.receive(canary + b"Content-Length: 6\r\n\r\nc4n4ry")
        hop.pass_time(1)
        upstream = hop.endpoint.accept()
        hop.pass_time(2)
        upstream.receive(OK)
        event = self.access()
        seen = {name: event[name] for name in ("hop", "request_id", "method", "status", "received", "sent", "tunnel")}
        expected = {"hop": "nitroproxy-test", "request_id": "an-id", "method": "POST", "status": 200, "received": 6}
        self.assertEqual(seen, {**expected, "sent": 2, "tunnel": False})
        times = [event[name] for name in ("connect_seconds", "answer_seconds", "seconds")]
        for found, wanted in zip(times, (1.0, 3.0, 3.0), strict=True):
            self.assertAlmostEqual(found, wanted, places=3)
        self.assertEqual(event["peer"], "192.0.2.1:4321")
        self.assertNotIn("c4n4ry", str(self.events))

    def test_level(self) -> None:
        """A failure on the way is a warning, a page of our own for debugging."""
        hop = self.hop()
        client = hop.client()
        client.receive(GET)
        hop.endpoint.refuse(ProxyError(Kind.DNS_ERROR, "no such name", hop="nitroproxy-relay"))
        event = self.access()
        self.assertEqual((event["level"], event["error"], event["detail"]), ("warn", "dns_error", "no such name"))
        self.assertEqual(event["found_by"], "nitroproxy-relay")
        self.events.clear()
        client.receive(GET)
        hop.endpoint.accept().receive(OK)
        self.assertEqual(self.access()["level"], "debug", "the test's route names no destination")

    def test_text(self) -> None:
        """The text says what the guide tells people to read: how far it came when, under which id, who found what."""
        record = Record(10.0, b"an-id", b"GET")
        record.host, record.port, record.status, record.opened_by = "a.example", 443, 504, b"first"
        record.connected, record.answered, record.sent = 10.25, 12.5, 7
        record.failed(ProxyError(Kind.HTTP_RESPONSE_TIMEOUT, "no response" + "x" * 9999), "nitroproxy-test")
        self.access_log().ended(record, 12.5)
        text = self.access()["message"]
        expected = "nitroproxy-test GET a.example:443 504 http_response_timeout 2.500s (connect 0.250s, answer 2.500s) "
        expected += "in=0 out=7 id=an-id opened_by=first found_by=nitroproxy-test: no response"
        self.assertEqual(text[: len(expected)], expected)
        self.assertLess(len(text), 600)
        self.events.clear()
        self.access_log().ended(Record(0.0, b"an-id", b"GET"), 1.0)
        self.assertEqual(self.access()["message"], "nitroproxy-test GET - 1.000s in=0 out=0 id=an-id")

    def test_long_target(self) -> None:
        """However long a request that is refused, and whatever it is made of, its event is short (K4)."""
        for target in (b"/https://" + b"\\" * 16_000, b"https://" + b"a" * 16_000, b"/https://" + b"'" * 16_000):
            self.events.clear()
            hop = self.hop(no_target)
            hop.client().receive(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertEqual(self.access()["error"], "invalid_target")
            self.assertLess(len(json_line(self.access())), 4096)
            self.assertLess(len(text_line(self.access())), 4096)

    def test_passed_on(self) -> None:
        """A failure that another hop has answered is a warning that says whose and what; a destination's is not."""
        for status, line, level in (
            (502, b"nitroproxy-relay; error=dns_error", "warn"),
            (403, b"nitroproxy-enclave; error=http_request_denied", "debug"),
        ):
            self.events.clear()
            hop = self.hop()
            hop.client().receive(GET)
            hop.endpoint.accept().receive(
                b"HTTP/1.1 %d No\r\nProxy-Status: %b\r\nContent-Length: 0\r\n\r\n" % (status, line)
            )
            event = self.access()
            found_by, _, token = line.decode().partition("; error=")
            self.assertEqual((event["found_by"], event["proxy_status"], event["level"]), (found_by, token, level))
            self.assertIn(f" id={event['request_id']} found_by={found_by}: {token}", event["message"])
            self.assertNotIn("error", event)
        for line in (
            b"cdn; error=dns_error",
            b"nitroproxy-relay; error=made_up",
            b"nitroproxy-relay; error=dns_error; x",
        ):
            self.events.clear()
            hop = self.hop()
            hop.client().receive(GET)
            hop.endpoint.accept().receive(b"HTTP/1.1 502 No\r\nProxy-Status: %b\r\nContent-Length: 0\r\n\r\n" % line)
            self.assertNotIn("found_by", self.access())

    def test_destination_claims(self) -> None:
        """A destination that says that a hop of ours has failed is not believed."""
        pool = OneHop()
        hop = self.hop(lambda request: Forward(pool.pool, "a.example", request.target, b"a.example"))
        hop.client().receive(GET)
        claim = b"HTTP/1.1 502 No\r\nProxy-Status: nitroproxy-relay; error=dns_error\r\nContent-Length: 0\r\n\r\n"
        pool.endpoint.accept().receive(claim)
        self.assertEqual((self.access()["status"], self.access()["level"]), (502, "debug"))
        self.assertNotIn("found_by", self.access())

    def test_client_gone(self) -> None:
        """A client that left before its answer was complete."""
        client = self.hop().client()
        client.receive(GET)
        client.lose()
        self.assertEqual((self.access()["error"], self.access()["status"]), ("client_gone", 0))

    def test_tunnel(self) -> None:
        """A tunnel is told of when it opens, and when it is over with what passed through it."""
        destination = WaitingEndpoint()

        def route(request: Request) -> Route:
            return Dial(lambda identity: destination)

        hop = self.hop(route)
        client = hop.client()
        client.receive(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nX-Request-Id: an-id\r\n\r\nhello")
        upstream = destination.accept()
        [opened] = [event for event in self.events if event["event"] == "tunnel"]
        self.assertEqual((opened["request_id"], opened["method"]), ("an-id", "CONNECT"))
        upstream.receive(b"hi")
        upstream.lose()
        hop.pass_time(0.1)
        client.settle()
        event = self.access()
        self.assertEqual((event["received"], event["sent"], event["tunnel"]), (5, 2, True))
        self.assertEqual(event["end"], "upstream_reset")
        self.assertIn(" 200 upstream_reset ", event["message"])

    def test_end(self) -> None:
        """What ended an exchange is a field of each event; the text has it only where the error does not say it."""
        for end, gone, error, shown in (
            (None, False, None, ""),
            (None, True, None, " client_gone"),
            (End.CLIENT_STOPPED_READING, True, None, " client_stopped_reading"),
            (End.TUNNEL_TIMEOUT, False, None, " tunnel_timeout"),
            (End.TUNNEL_TIMEOUT, False, Kind.DRAINING, " draining"),
        ):
            self.events.clear()
            record = Record(0.0, b"an-id", b"GET")
            record.end, record.client_gone, record.status = end, gone, 200
            if error is not None:
                record.failed(ProxyError(error, "no"), "nitroproxy-test")
            self.access_log().ended(record, 1.0)
            self.assertEqual(self.access()["end"], record.ended_by.value)
            self.assertTrue(self.access()["message"].startswith(f"nitroproxy-test GET 200{shown} 1.000s"), shown)

    def test_reused_connection(self) -> None:
        """A request on a connection that another request opened says which: there the relay's event is found."""
        hop = self.hop()
        client = hop.client()
        client.receive(GET.replace(b"\r\n\r\n", b"\r\nX-Request-Id: first\r\n\r\n"))
        upstream = hop.endpoint.accept()
        upstream.receive(OK)
        client.receive(GET.replace(b"\r\n\r\n", b"\r\nX-Request-Id: second\r\n\r\n"))
        upstream.receive(OK)
        first, second = [event for event in self.events if event["event"] == "access"]
        self.assertNotIn("opened_by", first)
        self.assertEqual(second["opened_by"], "first")

    def test_refused(self) -> None:
        """A connection that was turned away, and whose it was."""
        for peer, shown in (
            (IPv4Address("TCP", "192.0.2.1", 4321), "192.0.2.1:4321"),
            (IPv6Address("TCP", "2001:db8::1", 4321), "[2001:db8::1]:4321"),
            (UNIXAddress("/x"), "unix"),
            (VsockAddress(17, 5000), "vsock:17:5000"),
        ):
            self.events.clear()
            self.access_log().refused(Kind.PEER_DENIED, peer)
            [event] = self.events
            self.assertEqual((event["peer"], event["reason"], event["level"]), (shown, "peer_denied", "warn"))

    def test_many_turned_away(self) -> None:
        """Ten of a second are logged, for each reason, and with the next how many were not."""
        log, peer = self.access_log(), UNIXAddress("/x")
        for _ in range(1000):
            log.refused(Kind.PEER_DENIED, peer)
        log.refused(Kind.DRAINING, peer)
        self.assertEqual([event["reason"] for event in self.events], ["peer_denied"] * 10 + ["draining"])
        self.now += 0.9
        log.refused(Kind.PEER_DENIED, peer)
        self.assertEqual(len(self.events), 11)
        self.now += 0.1
        for left_out in (991, None):
            log.refused(Kind.PEER_DENIED, peer)
            self.assertEqual(self.events[-1].get("left_out"), left_out)
        self.assertIn("(and 991 more since the line before)", self.events[-2]["message"])

    def test_traceparent(self) -> None:
        """A trace context is logged."""
        record = Record(0.0, b"an-id", b"GET")
        record.traceparent = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"
        self.access_log().ended(record, 1.0)
        self.assertEqual(self.access()["traceparent"], record.traceparent.decode())
