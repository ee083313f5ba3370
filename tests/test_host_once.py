"""What the host daemon has once: its parts, on a reactor that does nothing. What they do: `test_chain_health`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.core import Metric
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.schema import HostProxy, Limits, Logging, Settings, Transport
from nitroproxy.host.components import HostRole
from nitroproxy.host.enclave_end import WORDS
from nitroproxy.host.once import HostOnce
from nitroproxy.telemetry.health import Check
from nitroproxy.telemetry.metrics import SUPERVISOR
from tests.roles import FakeReactor


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
        return HostOnce(self.process, self.changed(**sections), None)

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
        retired: list[str] = []
        self.patch(once._built.pool, "retire", lambda: retired.append("old"))
        commit = once.prepare(self.settings)
        self.assertEqual(retired, [])
        commit()
        self.patch(once._built.pool, "retire", lambda: retired.append("new"))
        for call in once.at_end:
            call()
        self.assertEqual(retired, ["old", "new"])

    def test_health(self) -> None:
        """The health that it examines has the daemon's workers, if there are several processes; and it fails while the
        daemon is being stopped."""
        self.process.drain()
        for whole, layers in ((None, ["host", "vsock", "enclave"]), (Whole(), ["host", "vsock", "enclave", "workers"])):
            once = HostOnce(self.process, self.settings, whole)
            examining = Deferred.fromCoroutine(once._built.health())
            self.reactor.advance(1.0)
            self.reactor.advance(1.0)
            health = self.successResultOf(examining)
            self.assertEqual(list(health.checks), layers)
            self.assertEqual(health.checks["host"], Check("fail", "the host daemon is being stopped"))

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
