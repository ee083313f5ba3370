"""Tests of `nitroproxy.tls.attested`: the agent. With an enclave: `test_chain_attested`."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IAgent
from zope.interface.verify import verifyObject

from nitroproxy.attestation import Policy
from nitroproxy.tls.attested import AttestedAgent
from nitroproxy.tls.settings import ClientCertificateFiles
from tests.attestation.tlspair import POLICY


class AgentTests(SynchronousTestCase):
    """On a reactor that connects nowhere."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()

    def test_interface(self) -> None:
        """It is an agent like Twisted's."""
        self.assertTrue(verifyObject(IAgent, AttestedAgent(self.reactor, POLICY)))

    def test_schemes(self) -> None:
        """Without TLS nothing is connected to."""
        agent = AttestedAgent(self.reactor, POLICY)
        for uri in (b"http://enclave.example/", b"ftp://enclave.example/", b"httpss://enclave.example/"):
            self.failureResultOf(agent.request(b"GET", uri), SchemeNotSupported)
        self.assertEqual(self.reactor.tcpClients, [])

    def test_own_connections(self) -> None:
        """Two agents share no connections: what one policy accepts another may not."""
        one, other = AttestedAgent(self.reactor, POLICY), AttestedAgent(self.reactor, POLICY)
        self.assertIsNot(one._pool, other._pool)
        self.successResultOf(one.close())

    def test_bad_settings(self) -> None:
        """A policy for documents of any age, and a client certificate that is not there."""
        self.assertRaises(ValueError, AttestedAgent, self.reactor, Policy(POLICY.entries, max_age=None))
        files = ClientCertificateFiles("/no/such/file", "/no/such/file")
        self.assertRaises(ValueError, AttestedAgent, self.reactor, POLICY, client_certificate=files)
