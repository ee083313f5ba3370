"""What the host daemon is made of. What it does with traffic: `test_chain`."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.ends import Enclave, HostProxy, Transport
from nitroproxy.config.schema import Credentials, Settings
from nitroproxy.config.traffic import Egress, Limits
from nitroproxy.daemon.enclave_record import EnclaveRecord, remove_record
from nitroproxy.daemon.place import Unable
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.host import components
from nitroproxy.host.components import HostRole
from nitroproxy.telemetry.metrics import SUPERVISOR
from nitroproxy.vsock.address import VsockAddress
from tests.roles import FakeReactor, RetiringPool, ask_nothing, no_rest


class HostRoleTests(SynchronousTestCase):
    """Its parts, on a reactor that does nothing."""

    def setUp(self) -> None:
        self.settings = Settings(transport=Transport(kind="unix", directory=str(Path(self.mktemp()).absolute())))
        self.reactor: Any = FakeReactor()
        self.role = HostRole()

    def process(self, worker: int | None = None) -> Any:
        return self.role.process(self.reactor, self.settings, 1, worker)

    def changed(self, **sections: Any) -> Settings:
        return msgspec.structs.replace(self.settings, **sections)

    def test_servers(self) -> None:
        """The gateway stops first: its last requests still go out through the relay."""
        servers = self.role.servers(self.reactor, self.settings)
        self.assertEqual(
            [[server.hop for server in stage] for stage in servers], [["nitroproxy-host"], ["nitroproxy-relay"]]
        )
        serving = self.role.serving(self.process(), self.settings, None, ask_nothing)
        self.assertEqual([factory.hop for factory in serving.factories], ["nitroproxy-host", "nitroproxy-relay"])

    def test_processes(self) -> None:
        """As many as are configured."""
        self.assertEqual(self.role.processes(self.changed(host_proxy=HostProxy(processes=3))), 3)

    def test_descriptors(self) -> None:
        """Only the first process of the daemon looks at the limit on descriptors."""
        looks = {worker: self.process(worker)._limits_descriptors for worker in (None, SUPERVISOR, 1)}
        self.assertEqual(looks, {None: True, SUPERVISOR: True, 1: False})

    def test_reload(self) -> None:
        """Policy and limits are replaced in both listeners when the reload is committed; the old pool goes."""
        serving = self.role.serving(self.process(), self.settings, None, ask_nothing)
        old = [(factory.router, factory.settings) for factory in serving.factories]
        pool = RetiringPool.of(self, serving)
        new = self.changed(limits=Limits(connections=7), egress=Egress(deny=("x.example:*",)))
        commit = serving.prepare(new)
        self.assertEqual([(factory.router, factory.settings) for factory in serving.factories], old)
        commit()
        self.assertEqual([factory.settings.connections for factory in serving.factories], [7, 16])
        self.assertTrue(
            all(factory.router is not router for factory, (router, _) in zip(serving.factories, old, strict=True))
        )
        self.assertEqual(pool.retired, 1)

    def test_automatic_cid(self) -> None:
        """The relay and the log take the enclave that runs; the gateway of no enclave says so, after a reload too."""
        settings = self.changed(
            transport=Transport(directory=str(Path(self.mktemp()).absolute())), enclave=Enclave(cid=0)
        )
        serving = self.role.serving(self.process(), settings, None, ask_nothing)
        once = self.role.once(self.process(SUPERVISOR), settings, no_rest())
        directory = Path(settings.transport.directory)
        directory.mkdir()
        for reload in (False, True):
            if reload:
                for part in (serving, once):
                    part.prepare(msgspec.structs.replace(settings, limits=Limits(connections=7)))()
            remove_record(directory)
            listeners = [serving.factories[1], once.log.factory]
            self.assertFalse(any(listener.settings.accepts(VsockAddress(17, 1)) for listener in listeners))
            connecting = serving._built.pool.connect("enclave", [])
            error = self.failureResultOf(connecting, ProxyError).value
            self.assertIs(error.kind, Kind.ENCLAVE_UNAVAILABLE)
            self.assertIn("enclave.json cannot be read", error.detail)
            EnclaveRecord(17, "x", "/x.eif", "ab", 1.0).write(directory)
            self.assertTrue(all(listener.settings.accepts(VsockAddress(17, 1)) for listener in listeners))

    def test_credentials(self) -> None:
        """The relay has the page, and health the check, only where a role is configured; reloads change neither."""
        for section, pages in ((Credentials(), [b"health"]), (Credentials(role="r"), [b"credentials", b"health"])):
            self.settings = self.changed(credentials=section)
            process = self.process()
            serving = self.role.serving(process, self.settings, None, ask_nothing)
            daemon = serving._credentials
            serving.prepare(self.settings)()
            self.assertIs(serving._credentials, daemon)
            relay: Any = serving._relay.router
            site = relay._site
            self.assertEqual(sorted(site.resource.children), pages)
            counted = [metric.name for metric in process.instruments.metrics.collect()]
            self.assertEqual("nitroproxy_credentials_requests" in counted, len(pages) == 2)

    def test_own_addresses(self) -> None:
        """Without this machine's own addresses the address guard would guard nothing: the daemon does not start."""

        self.patch(sys, "__stderr__", io.StringIO())

        def fail() -> Any:
            raise OSError(13, "Permission denied")

        self.role.check(self.settings)
        self.patch(components, "own_addresses", fail)
        self.assertRaises(Unable, self.role.check, self.settings)
