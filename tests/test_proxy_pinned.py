"""Connections pinned to a client by a login: what pins one, whom it serves, when it ends. No sockets."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.http1.messages import Fields
from nitroproxy.proxy.pinned import carries_login, offers_login
from nitroproxy.proxy.settings import PoolSettings
from nitroproxy.proxy.upstream import Pool
from tests.wire import GET, OneHop, Wire, split_head

LOGIN = b"GET /thing HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM TlRMTVNTUAAB\r\n\r\n"


def answer(status: int, *fields: bytes) -> bytes:
    """A response without a body."""
    return b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n%b\r\n" % (status, b"".join(field + b"\r\n" for field in fields))


class FieldTests(SynchronousTestCase):
    """Which fields tell that a login belongs to the connection."""

    def test_request(self) -> None:
        """NTLM and its relatives in any case and white space; not Basic or Bearer, nor a word that begins alike."""
        for value in (b"NTLM TlRM", b"negotiate YII=", b"Negotiate\tYII=", b"NTLM", b"CredSSP x", b"Kerberos YII="):
            self.assertTrue(carries_login(Fields([(b"Authorization", value)])), value)
        for value in (b"Basic bnRsbQ==", b"Bearer NTLM", b"NTLMv2 x", b""):
            self.assertFalse(carries_login(Fields([(b"Authorization", value)])), value)
        self.assertFalse(carries_login(Fields([(b"X", b"NTLM x")])))

    def test_response(self) -> None:
        """A challenge alone, among others, in a second field or with a token; or the note that the login persists."""
        for fields in (
            [(b"WWW-Authenticate", b"NTLM")],
            [(b"WWW-Authenticate", b'Basic realm="a", negotiate')],
            [(b"WWW-Authenticate", b"Basic"), (b"www-authenticate", b", Negotiate oYG2")],
            [(b"Persistent-Auth", b"true")],
            [(b"Persistent-Auth", b", True")],
        ):
            self.assertTrue(offers_login(Fields(fields)), fields)
        for fields in ([(b"WWW-Authenticate", b'Basic realm="NTLM"')], [(b"Persistent-Auth", b"false")], []):
            self.assertFalse(offers_login(Fields(fields)), fields)


class PinningTests(SynchronousTestCase):
    """Which client a connection with a login serves."""

    def setUp(self) -> None:
        self.hop = OneHop()

    def upstream_for(self, client: Wire, request: bytes = GET) -> Wire:
        """The connection that *client*'s next request opens."""
        client.receive(request)
        return self.hop.endpoint.accept()

    def test_every_sign_pins(self) -> None:
        """After each of these signs the connection serves its own client again, and no other client."""
        for request, response in (
            (GET, answer(401, b"WWW-Authenticate: NTLM")),
            (GET, answer(401, b"Connection: WWW-Authenticate", b"WWW-Authenticate: Negotiate")),
            (GET, answer(200, b"Persistent-Auth: true")),
            (LOGIN, answer(200)),
            (LOGIN, answer(404)),
        ):
            self.hop = OneHop()
            client, other = self.hop.client(), self.hop.client()
            upstream = self.upstream_for(client, request)
            upstream.receive(response)
            self.assertEqual(self.hop.pool.idle, 0, response)
            upstream.take()
            other.receive(GET)
            self.assertEqual(upstream.take(), b"", response)
            self.hop.endpoint.accept().receive(answer(200))
            client.receive(GET)
            self.assertIn(b"GET /thing", upstream.take(), response)

    def test_stays_pinned(self) -> None:
        """A response without any such field, to a request without one, does not return the connection to the pool."""
        client = self.hop.client()
        upstream = self.upstream_for(client, LOGIN)
        for _ in range(3):
            upstream.receive(answer(200))
            self.assertEqual(self.hop.pool.idle, 0)
            client.receive(GET)
        self.assertEqual(upstream.take().count(b"GET /thing"), 4)

    def test_a_login_gets_a_connection_of_its_own(self) -> None:
        """Credentials of such a scheme are not sent on a pooled connection, which might be dead, and retried."""
        self.upstream_for(self.hop.client()).receive(answer(200))
        self.assertEqual(self.hop.pool.idle, 1)
        self.hop.client().receive(LOGIN)
        self.assertEqual(len(self.hop.endpoint.waiting), 1)

    def test_never_retried(self) -> None:
        """A pinned connection that dies before the answer is a failure: the request is not sent on another."""
        client = self.hop.client()
        upstream = self.upstream_for(client)
        upstream.receive(answer(401, b"WWW-Authenticate: NTLM"))
        client.take()
        client.receive(GET)
        upstream.end()
        self.assertIn(b"connection_terminated", client.take())
        self.assertEqual(self.hop.endpoint.waiting, [])

    def test_dead_while_idle(self) -> None:
        """When the destination ended the connection between two requests the next one opens another."""
        for end in (Wire.end, lambda wire: wire.lose(ConnectionDone()), lambda wire: wire.receive(b"x")):
            self.hop = OneHop()
            client = self.hop.client()
            upstream = self.upstream_for(client)
            upstream.receive(answer(401, b"WWW-Authenticate: NTLM"))
            end(upstream)
            self.upstream_for(client).receive(answer(200))
            self.assertIn(b"200 X", client.take())

    def test_ends_with_its_client(self) -> None:
        """It ends with the client's connection, however that ends."""
        for leave in (Wire.end, Wire.lose):
            client = self.hop.client()
            upstream = self.upstream_for(client)
            upstream.receive(answer(401, b"WWW-Authenticate: NTLM"))
            leave(client)
            self.assertTrue(upstream.disconnecting)
            upstream.settle()
            self.assertEqual(self.hop.pool.open, 0)

    def test_not_after_a_reload(self) -> None:
        """A connection made under an earlier configuration is ended and not used again."""
        client = self.hop.client()
        upstream = self.upstream_for(client)
        upstream.receive(answer(401, b"WWW-Authenticate: NTLM"))
        self.hop.pool = Pool(
            lambda key, identity: self.hop.endpoint, self.hop.deadlines, PoolSettings(), end_is_proof=lambda key: False
        )
        self.upstream_for(client)
        self.assertTrue(upstream.disconnecting)

    def test_bounded(self) -> None:
        """A client that logs in to many destinations keeps at most eight such connections; the oldest ends."""
        hops = self.hop
        hops.route_by_path()
        client = hops.client()
        wires = []
        for number in range(9):
            wires.append(self.upstream_for(client, GET.replace(b"/thing", b"/%d" % number)))
            wires[-1].receive(answer(401, b"WWW-Authenticate: NTLM"))
        self.assertEqual([wire.disconnecting for wire in wires], [True] + [False] * 8)

    def test_told_to_the_client(self) -> None:
        """The 401 says that logins work through this proxy; the destination's own field about it is not passed on."""
        client = self.hop.client()
        self.upstream_for(client).receive(answer(401, b"WWW-Authenticate: NTLM", b"Proxy-Support: lies"))
        _, headers, _ = split_head(client.take())
        self.assertEqual(headers[b"proxy-support"], b"Session-Based-Authentication")
        self.assertEqual(headers[b"connection"], b"Proxy-Support")

    def test_gives_way(self) -> None:
        """Idle connections of clients that have logged in keep no other client out: the oldest ends, and its client's
        next request opens another. One in use stays."""
        hops = self.hop
        hops.route_by_path()
        clients = [hops.client(), hops.client()]
        wires = []
        for number in range(10):
            wires.append(self.upstream_for(clients[number // 5], GET.replace(b"/thing", b"/%d" % number)))
            wires[-1].receive(answer(401, b"WWW-Authenticate: NTLM"))
        clients[0].take()
        clients[0].receive(GET.replace(b"/thing", b"/0"))
        other = hops.client()
        self.upstream_for(other).receive(answer(200))
        self.assertIn(b"200 X", other.take())
        self.assertEqual([wire.aborted for wire in wires], [False, True] + [False] * 8)
        wires[1].settle()
        wires[0].receive(answer(200))
        self.upstream_for(clients[0], GET.replace(b"/thing", b"/1")).receive(answer(200))
        self.assertEqual(clients[0].take().count(b"200 X"), 2)
