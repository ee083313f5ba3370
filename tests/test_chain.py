"""The whole chain on real sockets: gateway, enclave proxy and relay over UNIX sockets to a TLS upstream, in one
process. Taps between the enclave's and the host's directories of sockets record what crosses, and break it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import sys
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet import tcp
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.web.client import PartialDownloadError, ResponseFailed, readBody
from twisted.web.http_headers import Headers

import nitroproxy.enclave.service
import nitroproxy.host.service
from nitroproxy.commands.gateway_status import look
from tests.chain import Body, ChainCase, Gathering

reactor: Any = global_reactor


class ChainTests(ChainCase):
    """A request through everything."""

    async def test_only_ciphertext_crosses_the_relay(self) -> None:
        """A canary in header, path and body arrives and comes back; nothing that crosses the relay contains it, and no
        log event, metric or health document does (S18)."""
        canary = os.urandom(16).hex()
        events = self.events()
        response: Any = await self.agent.request(b"GET", self.url(f"/hello?{canary}"), Headers({"X-Canary": [canary]}))
        self.assertEqual((response.code, await readBody(response)), (200, b"hello " + canary.encode()))
        body = canary.encode() * 100
        response = await self.agent.request(b"POST", self.url("/"), bodyProducer=Body(body))
        self.assertIn(body, await readBody(response))
        crossed = b"".join(self.to_relay.crossed)
        self.assertIn(b"CONNECT localhost:", crossed)
        self.assertNotIn(canary.encode(), crossed)
        self.assertIn(canary.encode(), b"".join(self.to_enclave.crossed), "or the taps record nothing")
        pages = b""
        for page in ("health", "metrics", canary):
            response = await self.agent.request(b"GET", f"http://127.0.0.1:{self.port}/{page}".encode())
            pages += await readBody(response)
        self.assertIn(b"nitroproxy_requests_total", pages)
        self.assertNotIn(canary.encode(), pages)
        hops = {event["hop"] for event in events if event["event"] == "access" and event["host"] == "localhost"}
        self.assertTrue(hops >= {"nitroproxy-host", "nitroproxy-enclave"}, hops)
        ours = [event for event in events if event.get("logger") != "twisted.python.log"]  # the upstream's own log
        self.assertNotIn(canary, str(ours))

    async def test_one_id_on_every_hop(self) -> None:
        """The request id that a client brings is in the events of gateway, enclave and relay."""
        events = self.events()
        response: Any = await self.agent.request(b"GET", self.url("/hello"), Headers({"X-Request-Id": ["find-me"]}))
        await readBody(response)
        self.assertEqual(response.headers.getRawHeaders("X-Request-Id"), ["find-me"])
        found = {(event["event"], event["hop"]) for event in events if event.get("request_id") == "find-me"}
        expected = {("access", "nitroproxy-host"), ("access", "nitroproxy-enclave"), ("tunnel", "nitroproxy-relay")}
        self.assertEqual(found, expected)

    async def test_small_segments(self) -> None:
        """Connections that gateway and loopback accept send small segments at once (TCP_NODELAY)."""
        for port in (self.port, self.loopback):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.setblocking(False)
                name = client.getsockname()
                found: list[socket.socket] = []
                while not found:
                    await deferLater(reactor, 0.01, lambda: None)
                    readers = [reader for reader in reactor.getReaders() if isinstance(reader, tcp.Server)]
                    found = [reader.socket for reader in readers if reader.socket.getpeername() == name]
                self.assertTrue(found[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    async def test_destination_in_our_name(self) -> None:
        """A destination's claims in the name of a hop of ours are not shown, logged or counted as failures of ours."""
        events = self.events()
        for path in ("/forged-enclave", "/forged-relay"):
            response: Any = await self.agent.request(b"GET", self.url(path))
            await readBody(response)
            self.assertEqual(response.code, 502)
            self.assertIsNone(response.headers.getRawHeaders("Proxy-Status"))
        access = [event for event in events if event["event"] == "access" and event["host"] == "localhost"]
        self.assertEqual({event["status"] for event in access}, {502})
        self.assertEqual([event for event in access if event.get("error") or event.get("found_by")], [])
        response = await self.agent.request(b"GET", f"http://127.0.0.1:{self.port}/metrics".encode())
        counted = re.findall(rb"nitroproxy_errors_total{[^}]*} [1-9]\S*", await readBody(response))
        self.assertEqual(counted, [])

    async def test_large_body(self) -> None:
        """8 MiB go there and back with the same digest."""
        body = os.urandom(8 << 20)
        response: Any = await self.agent.request(b"POST", self.url("/"), bodyProducer=Body(body))
        answer = await readBody(response)
        self.assertEqual(answer[:64], hashlib.sha256(body).hexdigest().encode())
        self.assertEqual(hashlib.sha256(answer[64:]).digest(), hashlib.sha256(body).digest())

    async def test_event_stream(self) -> None:
        """Server-sent events arrive one by one, each as soon as it is sent."""
        client: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", self.port).connect(Factory.forProtocol(Gathering))
        path = self.url("/events").partition(f":{self.port}".encode())[2]
        client.transport.write(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.until(b"data: 1\n\n")
        self.upstream_resource.event_source.write(b"data: 2\n\n")
        await client.until(b"data: 2\n\n")
        self.upstream_resource.event_source.finish()
        await client.until(b"\r\n0\r\n\r\n")
        client.transport.loseConnection()

    async def test_stalled_reader(self) -> None:
        """A client that stops reading stops the upstream; the daemons hold at most 256 KiB for it (F4)."""
        client: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", self.port).connect(Factory.forProtocol(Protocol))
        client.transport.pauseProducing()
        path = self.url("/endless").partition(f":{self.port}".encode())[2]
        client.transport.write(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        quiet, seen = 0, -1
        while quiet < 10:
            await deferLater(reactor, 0.05, lambda: None)
            crossed = sum(map(len, self.to_enclave.crossed))
            quiet = quiet + 1 if crossed == seen > 0 else 0
            seen = crossed
        theirs = {side.transport for tap in (self.to_relay, self.to_enclave) for side in tap.sides}
        held = [
            len(one.dataBuffer) - one.offset + one._tempDataLen
            for one in reactor.getWriters()
            if one not in theirs and one is not client.transport and one.getHost() != self.upstream.getHost()
        ]
        self.assertTrue(held, "somebody must be holding something")
        self.assertLessEqual(sum(held), 256 << 10)
        client.transport.abortConnection()
        while not self.upstream_resource.endless.stopped:
            await deferLater(reactor, 0.01, lambda: None)

    async def test_truncation_is_visible(self) -> None:
        """A response that breaks off upstream is broken off for the client, with a length and without (S10, S16)."""
        for path in ("/broken", "/until-close"):
            response: Any = await self.agent.request(b"GET", self.url(path))
            self.assertEqual(response.code, 200)
            await self.assertFailure(readBody(response), ResponseFailed, PartialDownloadError)

    async def test_relay_broken_mid_stream(self) -> None:
        """When the connection between enclave and relay breaks, so does the response (F7)."""
        response: Any = await self.agent.request(b"GET", self.url("/stalled"))
        for side in self.to_relay.sides:
            if side.transport is not None:
                side.transport.abortConnection()  # type: ignore[attr-defined]
        await self.assertFailure(readBody(response), ResponseFailed, PartialDownloadError)

    async def test_health_names_the_layer(self) -> None:
        """Health passes; without the enclave it is 503 and names it; when the enclave is back it passes again (F6)."""
        code, checks = await self.health()
        self.assertEqual(code, 200)
        self.assertEqual(list(checks), ["host", "vsock", "enclave", "egress", "dns", "policy", "tls_verification"])
        await self.stop("enclave")
        await self.to_enclave.port.stopListening()
        code, checks = await self.health()
        self.assertEqual((code, checks["enclave"][0]["status"]), (503, "fail"))
        response: Any = await self.agent.request(b"GET", self.url("/hello"))
        self.assertEqual(response.code, 503)
        self.assertEqual(json.loads(await readBody(response))["hop"], "nitroproxy-host")
        self.start("enclave")
        await self.tap("enclave", "enclave/5000.sock", "host")
        self.assertEqual((await self.health())[0], 200)
        response = await self.agent.request(b"GET", self.url("/hello"))
        self.assertEqual((response.code, await readBody(response)), (200, b"hello "))

    async def test_metrics_of_every_listener(self) -> None:
        """One scrape has the enclave's metrics and those of all listeners, including the one for the enclave's log."""
        response: Any = await self.agent.request(b"GET", f"http://127.0.0.1:{self.port}/metrics".encode())
        body = await readBody(response)
        self.assertIn(b'nitroproxy_up{role="enclave"} 1.0', body)
        for hop, role in (("host", "host"), ("relay", "host"), ("logs", "host"), ("enclave", "enclave")):
            refused = f'refused_total{{hop="nitroproxy-{hop}",reason="draining",role="{role}"}} 0.0'
            self.assertIn(refused.encode(), body)

    async def test_policy_drift(self) -> None:
        """Health warns when the enclave's rules differ from the relay's."""
        await self.stop("enclave")
        await self.to_enclave.port.stopListening()
        self.start("enclave", egress__deny=["bad.localhost:*"])
        await self.tap("enclave", "enclave/5000.sock", "host")
        code, checks = await self.health()
        self.assertEqual((code, checks["policy"][0]["status"]), (200, "warn"))
        self.assertIn("differ", checks["policy"][0]["output"])

    async def test_refusals(self) -> None:
        """The hop that refuses reports what policy, address guard and certificate checks refuse."""
        port = self.upstream.getHost().port
        for url, status, error, hop in (
            (f"https://other.localhost:{port}/", 403, "destination_not_allowed", "nitroproxy-enclave"),
            (f"https://127.0.0.1:{port}/", 403, "destination_not_allowed", "nitroproxy-enclave"),
            (f"http://localhost:{port}/", 403, "plaintext_destination", "nitroproxy-enclave"),
            ("https://localhost:1/", 502, "connection_refused", "nitroproxy-relay"),
            ("https://127.1/", 400, "invalid_target", "nitroproxy-host"),
        ):
            response: Any = await self.agent.request(b"GET", f"http://127.0.0.1:{self.port}/{url}".encode())
            document = json.loads(await readBody(response))
            self.assertEqual((response.code, document["error"], document["hop"]), (status, error, hop), url)
            [proxy_status] = response.headers.getRawHeaders("Proxy-Status")
            self.assertIn(hop, proxy_status)

    async def test_who_gives_up(self) -> None:
        """The enclave, which asked the destination, reports that it does not answer, within the user's time."""
        for role in ("enclave", "host"):
            self.assertTrue(self.reload(role, limits__response_timeout=2.0, limits__connect_timeout=2.0))
        response: Any = await self.agent.request(b"GET", self.url("/silent"))
        document = json.loads(await readBody(response))
        self.assertEqual((document["error"], document["hop"]), ("http_response_timeout", "nitroproxy-enclave"))
        with socket.create_server(("127.0.0.1", 0)) as deaf:  # Accepts connections, and never answers a handshake.
            url = f"http://127.0.0.1:{self.port}/https://localhost:{deaf.getsockname()[1]}/"
            response = await self.agent.request(b"GET", url.encode())
        document = json.loads(await readBody(response))
        self.assertEqual((document["error"], document["hop"]), ("connection_timeout", "nitroproxy-enclave"))

    async def test_reload_keeps_what_needs_a_restart(self) -> None:
        """SIGHUP never turns verification off or moves a hop away from its peer; it changes what can be changed."""
        await self.stop("enclave")
        self.start("enclave", {"DEBUG_MODE": "true"})
        places: dict[str, object] = {
            "enclave__port": 6000,
            "egress__port": 6001,
            "enclave__cid": 20,
            "transport__directory": str(self.directory / "elsewhere"),
        }
        self.assertTrue(self.reload("host", **places))
        response: Any = await self.agent.request(b"GET", self.url("/"))
        self.assertEqual(response.code, 200, "the gateway and the relay are where they were")
        weaker: dict[str, object] = {"tls__verify_certificates": False, "tls__min_version": "TLSv1.2"}
        self.assertTrue(self.reload("enclave", tls__ca_file=None, **weaker, **places))
        response = await self.agent.request(b"GET", self.url("/"))
        self.assertEqual(json.loads(await readBody(response))["error"], "tls_certificate_error")
        _, checks = await self.health()
        self.assertEqual(checks["tls_verification"][0]["status"], "pass")

    async def test_status_has_what_clients_were_told(self) -> None:
        """A failure that a client of the gateway received is in the status, with the hop that found it and the
        destination, without the path; what succeeded is not."""
        for url in (f"http://127.0.0.1:{self.port}/https://localhost:1/secret?x=1".encode(), self.url("/hello")):
            await readBody(await self.agent.request(b"GET", url))
        status = await deferToThread(look, f"http://127.0.0.1:{self.port}")
        [failure] = status.document["failures"]
        self.assertEqual((failure["error"], failure["found_by"]), ("connection_refused", "nitroproxy-relay"))
        self.assertEqual((failure["destination"], failure["count"]), ("localhost:1", 1))
        self.assertNotIn("secret", json.dumps(status.document))

    async def test_reload_ends_what_is_refused(self) -> None:
        """A destination that the relay denies after a reload cannot be reached over the enclave's open connections
        either; a CONNECT's tunnel ends when the enclave denies it."""
        events = self.events()
        response: Any = await self.agent.request(b"GET", self.url("/"))
        await readBody(response)
        client: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", self.port).connect(Factory.forProtocol(Gathering))
        where = f"localhost:{self.upstream.getHost().port}"
        client.transport.write(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
        await client.until(b"200 Connection established\r\n")
        self.assertTrue(self.reload("enclave", egress__deny=[where]))
        await client.ended
        [told] = [event for event in events if event["event"] == "tunnels_ended"]
        self.assertEqual((told["hop"], told["count"]), ("nitroproxy-enclave", 1))
        self.assertTrue(self.reload("enclave"))
        response = await self.agent.request(b"GET", self.url("/"))
        self.assertEqual((response.code, await readBody(response)), (200, b"hello "))
        self.assertTrue(self.reload("host", egress__allow_addresses=["::2/128"]))
        ended = [event["hop"] for event in events if event["event"] == "tunnels_ended"]
        self.assertEqual(ended, ["nitroproxy-enclave", "nitroproxy-relay"])
        response = await self.agent.request(b"GET", self.url("/"))
        self.assertEqual(json.loads(await readBody(response))["error"], "address_denied")

    def test_port_in_use(self) -> None:
        """A daemon that cannot listen says where and why in one line, and exits with status 1 (F14)."""
        module = nitroproxy.host.service
        options = module.Options({})
        options.parseOptions(
            [
                "--set=transport.kind=unix",
                f"--set=transport.directory={self.directory / 'second'}",
                f"--set=host_proxy.port={self.port}",
            ]
        )
        service: Any = module.makeService(options)
        with (self.directory / "stderr").open("w+") as stderr:
            self.patch(sys, "__stderr__", stderr)
            self.assertEqual(self.assertRaises(SystemExit, service.privilegedStartService).code, 1)
            stderr.seek(0)
            [line] = stderr.read().splitlines()
        self.assertIn(f"nitroproxy-host: cannot listen on 127.0.0.1:{self.port}: ", line)
        self.assertIn("in use", line)
        return service.stopService()  # type: ignore[no-any-return]
