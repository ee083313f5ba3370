"""A process's log on its way to the host. How lines are sent: `test_telemetry_shipping`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.ends import Transport
from nitroproxy.config.schema import Logging, Settings
from nitroproxy.enclave.shipped_log import ShippedLog
from nitroproxy.proxy.deadlines import Deadlines
from tests.roles import FakeReactor


class ShippedLogTests(SynchronousTestCase):
    """On a reactor that connects nowhere."""

    def test_dials(self) -> None:
        """Lines go to the host's log port, and what is lost on the way is counted."""
        reactor: Any = FakeReactor()
        settings = Settings(transport=Transport(kind="unix", directory="/np"), logging=Logging(port=5007))
        log = ShippedLog(reactor, settings, Deadlines(reactor))
        log.shipper.take({"event": "listening", "message": "x"})
        reactor.advance(1)
        [(path, *_)] = reactor.unixClients
        self.assertEqual(path, "/np/host/5007.sock")
        names = {family.name for source in log.sources for family in source()}
        self.assertIn("nitroproxy_log_lines_not_shipped", names)
