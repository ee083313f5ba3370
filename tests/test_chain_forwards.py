"""Ports in the enclave that lead to one destination each, through both daemons."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import PrivateCertificate

from nitroproxy.demo.certificates import ThrowAwayAuthority
from tests.chain import ChainCase
from tests.ports import free_port
from tests.test_chain_ingress import Application, End

reactor: Any = global_reactor


class ForwardCase(ChainCase):
    """Both daemons with one forward, to a server of ours.

    :ivar server: hands out its connections.
    """

    tapped = False
    tls = False
    #: The server has TLS, and takes no client that offers a protocol (ALPN).
    served_tls = False

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits what it returns
        self.server = Application()
        self.forward = free_port()
        authority = ThrowAwayAuthority()
        if self.served_tls:
            identity = PrivateCertificate.loadPEM(authority.issue().pem)
            options = identity.options()
            context = options.getContext()

            def choose(connection: object, offered: list[bytes]) -> bytes:
                raise AssertionError("no protocol must be offered")

            context.set_alpn_select_callback(choose)
            listening = reactor.listenSSL(0, self.server, options, interface="127.0.0.1")
        else:
            listening = reactor.listenTCP(0, self.server, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.destination = listening.getHost().port
        self.authority = authority
        await super().setUp()

    def configure(self, role: str, **more: object) -> str:
        path = self.directory / "destination.pem"
        path.write_bytes(self.authority.pem)
        forward = {"listen": f"127.0.0.1:{self.forward}", "to": f"localhost:{self.destination}", "tls": self.tls}
        return super().configure(role, **{"enclave__forwards": [forward], "tls__extra_ca_file": str(path), **more})

    async def connect(self) -> End:
        """The application's connection."""
        client: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", self.forward).connect(Factory.forProtocol(End))
        self.addCleanup(client.wire.abortConnection)
        return client  # type: ignore[no-any-return]

    async def both(self) -> tuple[End, End]:
        """The application's connection and the destination's end of it."""
        accepted = self.server.next()
        client = await self.connect()
        return client, await accepted

    async def exchange(self) -> None:
        """A word each way, the destination's first."""
        client, destination = await self.both()
        destination.wire.write(b"ready")
        await client.until(5)
        client.wire.write(b"question")
        await destination.until(8)
        destination.wire.write(b" answer")
        destination.wire.loseConnection()
        self.assertEqual(await client.ended, b"ready answer")


class PlainTests(ForwardCase):
    """Bytes as they are."""

    async def test_both_ways(self) -> None:
        """They pass both ways; the destination may speak first, and its end is passed on."""
        await self.exchange()

    async def test_record(self) -> None:
        """It is logged with its destination, in the enclave and at the relay."""
        events = self.events()
        await self.exchange()
        logged = [(event["hop"], event["method"], event["port"]) for event in events if event.get("event") == "tunnel"]
        self.assertIn(("nitroproxy-enclave", "TCP", self.destination), logged)
        self.assertIn(("nitroproxy-relay", "CONNECT", self.destination), logged)

    async def test_denied(self) -> None:
        """What the policy does not allow is reset, and the log says by which rule; so is what a reload forbids."""
        events = self.events()
        self.assertTrue(self.reload("enclave", egress__allow=["elsewhere.example:443"]))
        client = await self.connect()
        await client.lost
        self.assertEqual(self.server.accepted, [])
        [access] = [event for event in events if event.get("error") == "destination_not_allowed"]
        self.assertEqual((access["host"], access["port"]), ("localhost", self.destination))
        self.assertTrue(self.reload("enclave"))
        client, _ = await self.both()
        self.assertTrue(self.reload("enclave", egress__allow=["elsewhere.example:443"]))
        await client.lost

    async def test_nobody_listens(self) -> None:
        """A destination that refuses resets the application's connection."""
        await self.stop("enclave")
        forward = {"listen": f"127.0.0.1:{self.forward}", "to": f"localhost:{free_port()}", "tls": False}
        self.start("enclave", enclave__forwards=[forward])
        await (await self.connect()).lost


class TLSTests(ForwardCase):
    """TLS that starts in the enclave."""

    tls = True
    served_tls = True

    async def test_both_ways(self) -> None:
        """The application speaks plainly, the destination TLS without a protocol of HTTP."""
        await self.exchange()

    async def test_large(self) -> None:
        """Megabytes arrive whole both ways."""
        client, destination = await self.both()
        data = bytes(range(256)) * 16384
        client.wire.write(data)
        await destination.until(len(data))
        destination.wire.write(destination.received)
        await client.until(len(data))
        self.assertEqual(client.received, data)

    async def test_other_name(self) -> None:
        """A destination with another name's certificate gets no byte."""
        await self.stop("enclave")
        events = self.events()
        forward = {"listen": f"127.0.0.1:{self.forward}", "to": f"127.0.0.9:{self.destination}", "tls": True}
        listening = reactor.listenSSL(
            self.destination,
            self.server,
            PrivateCertificate.loadPEM(self.authority.issue().pem).options(),
            interface="127.0.0.9",
        )
        self.addCleanup(listening.stopListening)
        allow = ["127.0.0.9:*"]
        self.start("enclave", enclave__forwards=[forward], egress__allow=allow)
        self.assertTrue(self.reload("host", egress__allow=allow))
        client = await self.connect()
        client.wire.write(b"secret")
        await client.lost
        self.assertEqual(b"".join(end.received for end in self.server.accepted), b"")
        self.assertIn("tls_certificate_error", [event.get("error") for event in events])


class NoTLSTests(ForwardCase):
    """A destination without TLS where TLS is wanted."""

    tls = True

    async def test_refused(self) -> None:
        """The application's connection is reset."""
        client, destination = await self.both()
        destination.wire.write(b"220 mail.example ESMTP\r\n")
        await client.lost
        self.assertNotIn(b"secret", destination.received)
