"""How long an exchange may stay in its states: `nitroproxy.proxy.progress`, through the engine and on its own."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.errors import Kind, ProxyError
from nitroproxy.policy import ByPattern
from nitroproxy.proxy.backpressure import Backpressure, Throttle
from nitroproxy.proxy.deadlines import Alarm
from nitroproxy.proxy.progress import Progress
from nitroproxy.proxy.record import Record
from nitroproxy.proxy.settings import ExchangeSettings
from nitroproxy.proxy.states import CONNECTING, FLOWING, NONE, SENT, Event
from tests.wire import GET, OneHop, Wire, split_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SHORT = ExchangeSettings(idle_timeout=20.0, response_timeout=ByPattern({}, 20.0), min_body_rate=240)


class Uploading(SynchronousTestCase):
    """A client that uploads, to a next hop that the test drives."""

    def begin(self, settings: ExchangeSettings = SHORT, more: bytes = b"") -> Wire:
        """Send a request's head, and accept the upstream connection."""
        self.hop = OneHop(exchange=settings)
        self.client = self.hop.client()
        self.client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n" + more + b"\r\n")
        return self.hop.endpoint.accept()

    def status(self) -> bytes:
        """The status that the client has got since the last call; empty when nothing."""
        return self.client.take()[9:12]


class UploadTests(Uploading):
    """How fast a request's body has to come."""

    def test_pause(self) -> None:
        """A pause is not too slow: a body may come to a halt for nearly idle_timeout, and again, and then go on."""
        upstream = self.begin(ExchangeSettings(min_body_rate=240))
        for _ in range(3):
            self.client.receive(b"x" * 20000)
            self.hop.pass_time(55)
            self.assertEqual(self.status(), b"")
        self.client.receive(b"x" * 40000)
        upstream.receive(OK)
        self.assertEqual(self.status(), b"200")

    def test_pause_at_the_beginning(self) -> None:
        """The first bytes may be few, and the pause after them as long as any."""
        self.begin(ExchangeSettings(min_body_rate=240))
        self.client.receive(b"x")
        self.hop.pass_time(8)
        self.assertEqual(self.status(), b"")

    def test_short_idle_timeout(self) -> None:
        """With an idle_timeout of 2 seconds a client above the rate is served, however long it takes."""
        upstream = self.begin(ExchangeSettings(idle_timeout=2.0, min_body_rate=240))
        for _ in range(100):
            self.client.receive(b"x" * 250)
            self.hop.pass_time(1)
        self.assertEqual(self.status(), b"")
        self.client.receive(b"x" * 75000)
        upstream.receive(OK)
        self.assertEqual(self.status(), b"200")

    def test_dripping(self) -> None:
        """A body of a byte a second ends with 408 when its average is below the rate for longer than idle_timeout."""
        self.begin()
        for _ in range(20):
            self.assertEqual(self.status(), b"")
            self.client.receive(b"x")
            self.hop.pass_time(1)
        self.client.receive(b"x")
        self.hop.pass_time(0.2)
        self.assertIn(b"min_body_rate", self.client.take())

    def test_any_rate(self) -> None:
        """A rate of 0 asks for nothing but movement."""
        self.begin(ExchangeSettings(idle_timeout=2.0))
        for _ in range(30):
            self.client.receive(b"x")
            self.hop.pass_time(1)
        self.assertEqual(self.status(), b"")
        self.hop.pass_time(2)
        self.assertEqual(self.status(), b"408")

    def test_held_back(self) -> None:
        """Time in which the next hop does not take the body is not counted against the client's average."""
        upstream = self.begin()
        assert upstream.producer is not None
        self.client.receive(b"x" * 240)
        for _ in range(5):
            upstream.producer.pauseProducing()
            self.hop.pass_time(15)
            upstream.producer.resumeProducing()
            self.hop.pass_time(1)
            self.client.receive(b"x" * 240)
        self.assertEqual(self.status(), b"")

    def test_next_hop_resumes(self) -> None:
        """A next hop that takes bytes again after a long pause leaves the client all of idle_timeout to go on."""
        upstream = self.begin()
        assert upstream.producer is not None
        self.client.receive(b"x" * 50000)
        upstream.producer.pauseProducing()
        self.hop.pass_time(19)
        upstream.producer.resumeProducing()
        self.hop.pass_time(19)
        self.assertEqual(self.status(), b"")
        self.hop.pass_time(2)
        self.assertEqual(self.status(), b"408")

    def test_next_hop_takes_nothing(self) -> None:
        """A next hop that takes nothing of the body for idle_timeout is what is late, not the client."""
        upstream = self.begin()
        assert upstream.producer is not None
        self.client.receive(b"x" * 50000)
        upstream.producer.pauseProducing()
        self.hop.pass_time(20.1)
        self.assertEqual(self.status(), b"504")

    def test_early_head(self) -> None:
        """After an early response head the request's body is still watched, but not its rate: how fast it comes may
        now depend on the response."""
        self.begin().receive(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _ in range(50):
            self.client.receive(b"x")
            self.hop.pass_time(1)
        self.assertFalse(self.client.aborted)
        self.hop.pass_time(20)
        self.assertTrue(self.client.aborted)


class ContinueTests(Uploading):
    """Expect: 100-continue (RFC 9110 section 10.1.1)."""

    PATIENT = ExchangeSettings(idle_timeout=20.0, response_timeout=ByPattern({}, 100.0), min_body_rate=240)

    def test_only_100_is_the_100(self) -> None:
        """A 102 or a 103 is passed on and permits nothing: the client goes on waiting and is not too slow; the 100
        that follows lets it send, and it then has all of idle_timeout."""
        for interim in (b"102 Processing", b"103 Early Hints", b"199 Other"):
            upstream = self.begin(self.PATIENT, b"Expect: 100-continue\r\n")
            upstream.receive(b"HTTP/1.1 " + interim + b"\r\n\r\n")
            self.assertEqual(self.status(), interim[:3])
            self.hop.pass_time(90)
            self.assertEqual(self.status(), b"", interim)
            upstream.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.assertEqual(self.status(), b"100")
            self.hop.pass_time(19)
            self.assertEqual(self.status(), b"", interim)
            self.client.receive(b"x" * 100000)
            upstream.receive(OK)
            self.assertEqual(self.status(), b"200")

    def test_interim_without_100(self) -> None:
        """A 103 without a 100 puts nothing off: the next hop is late with its response after response_timeout."""
        upstream = self.begin(self.PATIENT, b"Expect: 100-continue\r\n")
        self.hop.pass_time(50)
        upstream.receive(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        self.assertEqual(self.status(), b"103")
        self.hop.pass_time(50.1)
        self.assertEqual(self.status(), b"504")

    def test_100_and_no_body(self) -> None:
        """A client that has its 100 and sends nothing is late after idle_timeout."""
        upstream = self.begin(more=b"Expect: 100-continue\r\n")
        self.hop.pass_time(15)
        self.assertEqual(self.status(), b"")
        upstream.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(self.status(), b"100")
        self.hop.pass_time(20.1)
        self.assertEqual(self.status(), b"408")

    def test_100_that_never_comes(self) -> None:
        """A next hop that never says 100 is late with its response; it is not the client that is."""
        self.begin(more=b"Expect: 100-continue\r\n")
        self.hop.pass_time(20.1)
        self.assertEqual(self.status(), b"504")

    def test_client_that_does_not_wait(self) -> None:
        """A client may send its body without the 100; from then on it is an upload like any other."""
        upstream = self.begin(self.PATIENT, b"Expect: 100-continue\r\n")
        self.client.receive(b"x")
        self.hop.pass_time(20.1)
        self.assertEqual(self.status(), b"408")
        upstream = self.begin(self.PATIENT, b"Expect: 100-continue\r\n")
        self.client.receive(b"x" * 100000)
        upstream.receive(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
        self.assertEqual(self.status(), b"100")

    def test_second_100(self) -> None:
        """Another 100 while the body moves is no movement."""
        upstream = self.begin(more=b"Expect: 100-continue\r\n")
        upstream.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.hop.pass_time(15)
        upstream.receive(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.client.take()
        self.hop.pass_time(5.2)
        self.assertEqual(self.status(), b"408")


class ClosingTests(Uploading):
    """Responses that come before the request's end."""

    def test_early_response_says_close(self) -> None:
        """A response that begins before the request's end says that the connection ends with it, whatever its status,
        and also where the client still waits for its 100."""
        for status in (b"200 OK", b"204 No Content", b"307 Temporary Redirect", b"413 Too Large", b"503 No"):
            for more in (b"", b"Expect: 100-continue\r\n"):
                upstream = self.begin(more=more)
                length = b"" if status.startswith(b"204") else b"Content-Length: 0\r\n"
                upstream.receive(b"HTTP/1.1 " + status + b"\r\n" + length + b"\r\n")
                _, headers, _ = split_head(self.client.take())
                self.assertEqual(headers.get(b"connection"), b"close", status)
                self.assertTrue(self.client.half_closed)
                self.assertTrue(upstream.aborted)

    def test_response_after_the_request(self) -> None:
        """One that begins after the request's end keeps the connection."""
        upstream = self.begin()
        self.client.receive(b"x" * 100000)
        upstream.receive(OK)
        _, headers, _ = split_head(self.client.take())
        self.assertNotIn(b"connection", headers)
        self.assertFalse(self.client.half_closed)

    def test_last_response_to_a_slow_reader(self) -> None:
        """The time to linger begins when the response has left, not before: a slow reader gets all of it."""
        self.begin().receive(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        self.hop.pass_time(10)
        self.assertFalse(self.client.aborted, "it may still be read")
        self.client.settle()
        self.hop.pass_time(2.1)
        self.assertTrue(self.client.aborted)

    def test_client_that_never_reads_its_last_response(self) -> None:
        """A connection that is to be closed, and whose client does not read, is ended all the same."""
        hop = OneHop(exchange=SHORT)
        client = hop.client()
        client.receive(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        hop.endpoint.accept().receive(OK)
        self.assertTrue(client.disconnecting)
        hop.pass_time(60.1)
        self.assertTrue(client.aborted)


class _Client:
    """As much of a `Client` as a `Progress` looks at."""

    def __init__(self, hop: OneHop) -> None:
        self.pace = Backpressure(lambda: None, hop.deadlines.seconds)
        self.throttle = Throttle(lambda: None, hop.deadlines.seconds)
        self.alarm = Alarm(hop.deadlines)


class ProgressTests(SynchronousTestCase):
    """The class on its own."""

    def setUp(self) -> None:
        self.hop = OneHop()
        self.late: list[ProxyError | None] = []
        client, record = _Client(self.hop), Record(0.0, b"an-id")
        self.progress = Progress(client, record, SHORT, self.hop.deadlines, self.late.append)  # type: ignore[arg-type]

    def test_illegal_event(self) -> None:
        """An event that the table does not have is an error, and changes nothing."""
        self.assertRaises(KeyError, self.progress.happened, Event.RESPONSE_HEAD)
        self.assertRaises(KeyError, self.progress.happened, Event.SWITCH)
        self.assertEqual((self.progress.request, self.progress.response), (CONNECTING, NONE))

    def test_time_runs_from_the_arrival(self) -> None:
        """Without a body, response_timeout runs since the request arrived, also over a connection that was stale."""
        self.hop.pass_time(5)
        self.progress.happened(Event.HEAD_SENT)
        self.hop.pass_time(5)
        self.progress.happened(Event.STALE)
        self.hop.pass_time(5)
        self.assertEqual(self.late, [])
        self.progress.happened(Event.HEAD_SENT)
        self.hop.pass_time(5.1)
        [error] = self.late
        assert error is not None
        self.assertIs(error.kind, Kind.HTTP_RESPONSE_TIMEOUT)

    def test_over(self) -> None:
        """What is over is not watched: no deadline remains."""
        self.progress.happened(Event.HEAD_SENT)
        self.progress.happened(Event.RESPONSE_HEAD)
        self.assertEqual((self.progress.request, self.progress.response), (SENT, FLOWING))
        self.progress.happened(Event.RESPONSE_END)
        self.hop.pass_time(50)
        self.assertEqual(self.late, [])
        self.assertEqual(self.hop.clock.getDelayedCalls(), [])
