"""What the enclave daemon is made of. What it does with traffic: `test_chain`."""

from __future__ import annotations

import fcntl
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.ends import Enclave, Transport
from nitroproxy.config.schema import Attestation, Credentials, Logging, Settings
from nitroproxy.config.traffic import Ingress, Limits, Tls
from nitroproxy.daemon.place import Unable
from nitroproxy.daemon.reload import Unloadable
from nitroproxy.enclave import gates
from nitroproxy.enclave.components import EnclaveRole
from nitroproxy.telemetry.metrics import SUPERVISOR
from nitroproxy.vsock.address import VsockAddress
from tests.attestation.fake_nsm import FakeNsm
from tests.roles import FakeReactor, RetiringPool, ask_nothing, no_rest


class EnclaveRoleTests(SynchronousTestCase):
    """Its parts, on a reactor that does nothing."""

    def setUp(self) -> None:
        self.settings = Settings(transport=Transport(kind="unix", directory=str(Path(self.mktemp()).absolute())))
        self.reactor: Any = FakeReactor()
        self.role = EnclaveRole()

    def process(self, worker: int | None = None, settings: Settings | None = None) -> Any:
        return self.role.process(self.reactor, settings or self.settings, 1, worker)

    def changed(self, **sections: Any) -> Settings:
        return msgspec.structs.replace(self.settings, **sections)

    def test_servers(self) -> None:
        """One for the host, one for applications in the enclave unless that has no port; each with its factory."""
        for port, count in ((8080, 2), (0, 1)):
            settings = self.changed(enclave=Enclave(proxy_port=port))
            [stage] = self.role.servers(self.reactor, settings)
            serving = self.role.serving(self.process(), settings, None, ask_nothing)
            self.assertEqual((len(stage), len(serving.factories)), (count, count))

    def test_processes(self) -> None:
        """As many as are configured."""
        self.assertEqual(self.role.processes(self.changed(enclave=Enclave(processes=3))), 3)

    def test_descriptors(self) -> None:
        """Only the first process of the daemon looks at the limit on descriptors."""
        looks = {worker: self.process(worker)._limits_descriptors for worker in (None, SUPERVISOR, 1)}
        self.assertEqual(looks, {None: True, SUPERVISOR: True, 1: False})

    def test_log(self) -> None:
        """Every process ships its own log, with what it has not shipped in its metrics; without a port none does."""
        for worker in (None, SUPERVISOR, 2):
            process = self.process(worker)
            self.assertEqual(len(process.instruments.log._takers), 2)
            names = {family.name for family in process.instruments.metrics.collect()}
            self.assertIn("nitroproxy_log_lines_not_shipped", names)
            self.assertEqual(len(process.at_end), 3)
        process = self.process(settings=self.changed(logging=Logging(port=0)))
        self.assertEqual((len(process.instruments.log._takers), len(process.at_end)), (1, 1))

    def test_reload(self) -> None:
        """Policy and limits are replaced in both listeners when the reload is committed; the old pool goes."""
        serving = self.role.serving(self.process(), self.settings, None, ask_nothing)
        routers = [factory.router for factory in serving.factories]
        pool = RetiringPool.of(self, serving)
        commit = serving.prepare(self.changed(limits=Limits(connections=7)))
        self.assertEqual([factory.router for factory in serving.factories], routers)
        commit()
        self.assertEqual([factory.settings.connections for factory in serving.factories], [7 + 8, 7])
        self.assertNotIn(serving.factories[1].router, routers)
        self.assertEqual(pool.retired, 1)

    def test_attestation(self) -> None:
        """With an NSM the daemon has an identity, which those that serve are given, and pages for it: on the host's
        listener one, on that for applications in the enclave all."""
        self.patch(fcntl, "ioctl", FakeNsm(time.time).ioctl)
        clocks = Path(self.mktemp())
        clocks.mkdir()
        for name in ("current", "available"):
            (clocks / f"{name}_clocksource").write_text("tsc")
        self.patch(gates, "CLOCKS", clocks)
        settings = self.changed(attestation=Attestation(device=os.devnull, emulated=True))
        process = self.process(SUPERVISOR)
        once = self.role.once(process, settings, no_rest())
        self.addCleanup(lambda: [end() for end in once.at_end])
        self.assertEqual(len(once.answerers), 6)
        self.assertIn("nitroproxy_nsm_seconds", {family.name for family in process.instruments.metrics.collect()})
        serving = self.role.serving(self.process(1), settings, None, ask_nothing)
        self.assertIsNone(serving._check_identity())
        serving.take(once.shared)
        check = serving._check_identity()
        assert check is not None
        self.assertEqual(check.status, "warn")
        self.assertIn("EMULATED", check.output)
        factories: Any = serving.factories
        pages = [
            set(factory.router._site.resource.getStaticEntity(b"enclave").listStaticNames()) for factory in factories
        ]
        self.assertEqual(pages, [{b"attestation"}, {b"attestation"}, {b"attestation", b"random", b"kms"}])
        attested: Any = serving._attested
        served = attested._context
        self.assertIsNotNone(served)
        serving.take(once.shared)
        self.assertIsNot(attested._context, served, "new connections get the new certificate")

    def test_attested_listener(self) -> None:
        """It stops before the others, is there with the NSM and a port only, and its limits follow a reload."""
        attestation = Attestation(device=os.devnull)
        for port, expected in ((5443, [1, 2]), (0, [2])):
            settings = self.changed(attestation=attestation, ingress=Ingress(port=port))
            stages = self.role.servers(self.reactor, settings)
            self.assertEqual([len(stage) for stage in stages], expected)
            serving = self.role.serving(self.process(), settings, None, ask_nothing)
            self.assertEqual(len(serving.factories), sum(expected))
        settings = self.changed(attestation=attestation)
        serving = self.role.serving(self.process(), settings, None, ask_nothing)
        outside, inside = serving.factories[0], serving.factories[1]
        self.assertIsNot(outside.outer, outside)
        self.assertIs(inside.outer, inside)
        serving.prepare(msgspec.structs.replace(settings, limits=Limits(connections=7)))()
        self.assertEqual(outside.settings.connections, 7)
        self.assertFalse(outside.settings.accepts(VsockAddress(4, 1)))
        self.assertTrue(outside.settings.accepts(VsockAddress(3, 1)))

    def test_client_authorities(self) -> None:
        """A file of clients' authorities that cannot be used is an error in the first process too."""
        ingress = Ingress(client_ca_file="/no/such/file.pem")
        bad = self.changed(attestation=Attestation(device=os.devnull), ingress=ingress)
        for make in (
            lambda: self.role.serving(self.process(), bad, None, ask_nothing),
            lambda: self.role.once(self.process(), bad, no_rest()),
        ):
            self.assertIn("ingress.client_ca_file: /no/such/file.pem", str(self.assertRaises(Unloadable, make)))

    def test_no_attestation(self) -> None:
        """Without an NSM there is nothing of it."""
        once = self.role.once(self.process(), self.settings, no_rest())
        serving = self.role.serving(self.process(), self.settings, None, ask_nothing)
        serving.take(once.shared)
        self.assertEqual((once.shared, dict(once.answerers), list(once.at_end)), (b"", {}, []))
        self.assertIsNone(serving._check_identity())
        factories: Any = serving.factories
        for factory in factories:
            self.assertIsNone(factory.router._site.resource.getStaticEntity(b"enclave"))

    def test_credentials(self) -> None:
        """Applications in the enclave find the credentials' page where there are a role and a token; the host never."""
        for section, here in (
            (Credentials(), False),
            (Credentials(role="r"), False),
            (Credentials(token_sha256="0" * 64), False),
            (Credentials(role="r", token_sha256="0" * 64), True),
        ):
            settings = self.changed(credentials=section)
            process = self.process()
            serving = self.role.serving(process, settings, None, ask_nothing)
            for _ in range(2):
                factories: Any = serving.factories
                parent, own = (factory.router._site.resource.getStaticEntity(b"enclave") for factory in factories)
                self.assertIsNone(parent)
                self.assertEqual(own is not None and own.listStaticNames() == [b"credentials"], here)
                serving.prepare(settings)()
            counted = {family.name for family in process.instruments.metrics.collect()}
            self.assertEqual("nitroproxy_credentials_requests" in counted, section.role is not None)

    def test_gate_fails(self) -> None:
        """A gate that fails ends the daemon with one line that names it."""
        settings = self.changed(attestation=Attestation(device="/no/such/device"))
        output = io.StringIO()
        self.patch(sys, "__stderr__", output)
        error = self.assertRaises(Unable, self.role.once, self.process(), settings, None)
        self.assertEqual(error.code, 1)
        [line] = output.getvalue().splitlines()
        self.assertIn("nitroproxy-enclave: attestation: the gate 'nsm' has failed: /no/such/device: No such", line)

    def test_trust_roots(self) -> None:
        """Authorities that cannot be loaded are an error at the start and at a reload, also in the first of several
        processes, which has no use for them itself: the workers would each fail."""
        bad = self.changed(tls=Tls(ca_file="/no/such/file.pem"))
        process = self.process()
        for make in (
            lambda: self.role.serving(process, bad, None, ask_nothing),
            lambda: self.role.once(process, bad, no_rest()),
            lambda: self.role.serving(process, self.settings, None, ask_nothing).prepare(bad),
            lambda: self.role.once(process, self.settings, no_rest()).prepare(bad),
        ):
            error = self.assertRaises(Unloadable, make)
            self.assertIn("tls.ca_file", str(error))
        self.role.once(process, self.settings, no_rest()).prepare(self.settings)()
