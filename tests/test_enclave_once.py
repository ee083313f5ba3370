"""What the enclave daemon has once: `nitroproxy.enclave.once`. Its attestor: `test_enclave_attestor`."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

import nitroproxy.enclave.once as module
from nitroproxy.config.ends import Enclave, Transparent, Transport
from nitroproxy.config.schema import Settings
from nitroproxy.config.traffic import Egress, Tls
from nitroproxy.daemon.place import Unable
from nitroproxy.daemon.reload import Unloadable
from nitroproxy.enclave.components import EnclaveRole
from nitroproxy.enclave.once import EnclaveOnce, check_sockets, names_of, transparent_listeners
from nitroproxy.transparent.answers import Code
from tests.roles import FakeReactor


class OnceTests(SynchronousTestCase):
    """Names for applications that know no proxy."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.settings = Settings(
            transport=Transport(kind="unix", directory=str(self.directory)),
            enclave=Enclave(transparent=Transparent(enabled=True)),
            egress=Egress(allow=("a.example:443",)),
        )
        self.process = EnclaveRole().process(FakeReactor(), self.settings, 1, None)

    def given(self) -> None:
        """The process was given all sockets."""
        opened = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
        for one in opened:
            self.addCleanup(one.close)
        numbers = {"dns-udp": opened[0].fileno(), "dns-tcp": opened[1].fileno()}
        self.patch(module, "activated_socket", lambda reactor, name: numbers.get(name, 9))

    def test_names(self) -> None:
        """Questions are answered by the policy, a reload replaces it, and what is counted is in the metrics."""
        self.given()
        once = EnclaveOnce(self.process, self.settings)
        [place] = once.places
        self.assertEqual(place.name, "DNS")
        answers: Any = once._answers
        self.assertEqual(answers.answer(b"a.example", 1).code, Code.NOERROR)
        commit = once.prepare(msgspec.structs.replace(self.settings, egress=Egress(allow=("b.example:443",))))
        self.assertEqual(answers.answer(b"a.example", 1).code, Code.NOERROR)
        commit()
        self.assertEqual(answers.answer(b"a.example", 1).code, Code.NXDOMAIN)
        names = {family.name for family in self.process.instruments.metrics.collect()}
        self.assertLessEqual({"nitroproxy_dns_questions", "nitroproxy_dns_names"}, names)

    def test_without_names(self) -> None:
        """Without DNS, and without the whole, there is no name server."""
        for transparent in (Transparent(enabled=True, dns=False), Transparent()):
            settings = msgspec.structs.replace(self.settings, enclave=Enclave(transparent=transparent))
            self.assertEqual(EnclaveOnce(self.process, settings).places, [])

    def test_sockets(self) -> None:
        """A daemon that was not given the sockets says so and ends; without the key it needs none."""
        errors: list[str] = []
        self.patch(module, "exit_with", errors.append)
        check_sockets(Settings())
        self.assertEqual((errors, transparent_listeners(Settings())), ([], []))
        check_sockets(self.settings)
        self.assertIn("was not given the sockets transparent-ipv4", errors[0])
        self.assertIn("enclave-init", errors[0])
        self.given()
        check_sockets(self.settings)
        self.assertEqual(len(errors), 1)
        self.assertTrue(issubclass(Unable, SystemExit))

    def test_no_file(self) -> None:
        """Where there can be no file for the names the configuration cannot be used, and the reason names the key."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        self.directory.write_text("")
        error = self.assertRaises(Unloadable, names_of, self.settings)
        self.assertIn("transport.directory", str(error))

    def test_trust_roots(self) -> None:
        """Authorities that cannot be loaded are found at the start, before a socket is touched."""
        bad = msgspec.structs.replace(self.settings, tls=Tls(ca_file="/no/such/file.pem"))
        self.assertIn("tls.ca_file", str(self.assertRaises(Unloadable, EnclaveOnce, self.process, bad)))
