"""What the host daemon has once: its parts, on a reactor that does nothing. What they do: `test_chain_health`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.core import Metric
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.ends import Enclave, HostProxy, Transport
from nitroproxy.config.load import Configuration
from nitroproxy.config.schema import Logging, Settings
from nitroproxy.config.traffic import Limits
from nitroproxy.daemon.role import Rest
from nitroproxy.host.components import HostRole
from nitroproxy.host.enclave_end import WORDS
from nitroproxy.host.once import HostOnce
from nitroproxy.host.pages import HealthRouter
from nitroproxy.host.status import Status
from nitroproxy.host.status_resource import STATUS
from nitroproxy.http1.messages import Request
from nitroproxy.proxy.route import Route
from nitroproxy.telemetry.failures import FAILURES, Failure
from nitroproxy.telemetry.health import Check
from nitroproxy.telemetry.metrics import SUPERVISOR
from tests.roles import FakeReactor, RetiringPool, no_rest
from tests.wire import GET, OneHop, record


class Whole:
    """All processes of a daemon."""

    async def metrics(self) -> list[Metric]:
        """Nothing."""
        return []

    async def check(self) -> Check:
        """All is well."""
        return Check("pass", "2 answer")


class HostOnceTests(SynchronousTestCase):
    """The first process, or the only one."""

    def setUp(self) -> None:
        self.settings = Settings(transport=Transport(kind="unix", directory=str(Path(self.mktemp()).absolute())))
        self.reactor: Any = FakeReactor()
        self.process = HostRole().process(self.reactor, self.settings, 1, SUPERVISOR)

    def once(self, **sections: Any) -> HostOnce:
        return HostOnce(self.process, self.changed(**sections), no_rest())

    def look(self) -> None:
        """Let a look at the stack, where no enclave answers, come to its end."""
        for _ in range(3):
            self.reactor.advance(1.0)

    def changed(self, **sections: Any) -> Settings:
        return msgspec.structs.replace(self.settings, **sections)

    def test_log(self) -> None:
        """The enclave's log is taken once, at a place whose limits are reloaded, too; without a port not at all."""
        once = self.once()
        [place] = once.places
        self.assertTrue(place.name.endswith("/host/5002.sock"))
        once.prepare(self.changed(limits=Limits(connections=7)))()
        self.assertEqual(once.log.factory.settings.connections, 7)
        self.assertEqual(self.once(logging=Logging(port=0)).places, [])

    def test_health_listener(self) -> None:
        """It listens where it is told, with a limit of its own that a lower one of the configuration lowers; without a
        port there is none."""
        once = self.once(host_proxy=HostProxy(health_interface="::1", health_port=9))
        self.assertEqual([place.name for place in once.places][1:], ["[::1]:9"])
        assert once.health_factory is not None
        self.assertEqual(once.health_factory.settings.connections, 64)
        router = once.health_factory.router
        once.prepare(self.changed(limits=Limits(connections=7)))()
        self.assertEqual(once.health_factory.settings.connections, 7)
        self.assertIsNot(once.health_factory.router, router)
        self.assertIsNone(self.once().health_factory)

    def test_pool(self) -> None:
        """A reload closes the connection to the enclave, and so does the end."""
        once = self.once()
        old = RetiringPool.of(self, once)
        commit = once.prepare(self.settings)
        self.assertEqual(old.retired, 0)
        commit()
        new = RetiringPool.of(self, once)
        for call in once.at_end:
            call()
        self.assertEqual((old.retired, new.retired), (1, 1))

    def test_health(self) -> None:
        """The health that it examines has the daemon's workers, if there are several processes; and it fails while the
        daemon is being stopped."""
        self.process.drain()
        for whole, layers in ((None, ["host", "vsock", "enclave"]), (Whole(), ["host", "vsock", "enclave", "workers"])):
            once = HostOnce(self.process, self.settings, no_rest(whole))
            examining = Deferred.fromCoroutine(once._built.health())
            self.reactor.advance(1.0)
            self.reactor.advance(1.0)
            health = self.successResultOf(examining)
            self.assertEqual(list(health.checks), layers)
            self.assertEqual(health.checks["host"], Check("fail", "the host daemon is being stopped"))

    def test_status(self) -> None:
        """The document has what the enclave's log tells, what serves has seen, and what is configured."""
        failed = Failure("enclave_unavailable", "nitroproxy-host", "a.example:443", 1, 4.0, "ours")

        async def ask_serving(what: str) -> list[Any]:
            self.assertEqual(what, FAILURES)
            return [[msgspec.to_builtins(failed)], []]

        configuration = Configuration(self.changed(enclave=Enclave(cid=77)), False, None, {"enclave.cid": "a file"})
        once = HostOnce(self.process, self.settings, Rest(None, ask_serving, lambda: configuration))
        told = {
            "event": "access",
            "error": "dns_error",
            "found_by": "nitroproxy-relay",
            "host": "b.example",
            "port": 443,
        }
        self.patch(self.process.instruments.lines, "take", lambda fields: None)
        once.log.intake._take({**told, "request_id": "theirs", "message": "m"})
        asked = Deferred.fromCoroutine(once.answerers[STATUS](None))
        self.look()
        status = msgspec.convert(self.successResultOf(asked), Status)
        self.assertEqual([failure.request_id for failure in status.failures], ["theirs", "ours"])
        self.assertEqual((status.cid, status.status), (77, "fail"))
        self.assertIn(("enclave.cid", "77", "a file"), status.configuration)

    def test_where_status_is(self) -> None:
        """The health listener has the status on loopback, and elsewhere only if told."""
        for interface, told, expected in (
            ("127.0.0.1", False, 200),
            ("::1", False, 200),
            ("0.0.0.0", False, 404),
            ("192.0.2.1", False, 404),
            ("0.0.0.0", True, 200),
        ):
            gateway = HostProxy(health_interface=interface, health_port=9, health_status=told)
            once = self.once(host_proxy=gateway)
            router = once._built.router
            client = OneHop(partial(self.route, router)).client()
            for page in (b"/status", b"/status.json"):
                client.receive(GET.replace(b"/thing", page))
                self.look()
                self.assertEqual(client.take().split(b" ")[1], b"%d" % expected, (interface, told))

    @staticmethod
    def route(router: HealthRouter, request: Request) -> Route:
        """As the listener asks."""
        return router.route(request, record())

    def test_enclave_end(self) -> None:
        """The enclave's events reach the log and the account of its end, which the pages ask for."""
        written: list[Any] = []
        self.patch(self.process.instruments.lines, "take", written.append)
        once = self.once()
        event = {"event": "enclave_did_not_start", "message": "the enclave did not start: why"}
        once.log.intake._take(event)
        self.assertEqual(written, [event])
        words: str = self.successResultOf(Deferred.fromCoroutine(once.answerers[WORDS](None)))
        self.assertTrue(words.endswith("Z the enclave said: the enclave did not start: why"), words)
