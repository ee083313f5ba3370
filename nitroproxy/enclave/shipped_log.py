"""A process's log on its way to the host, as the configuration has it. How lines are sent: `telemetry.shipping`."""

from __future__ import annotations

from typing import Any

from nitroproxy.config.schema import Settings
from nitroproxy.daemon.wiring import hop_client, pool_settings
from nitroproxy.errors import Kind
from nitroproxy.proxy.connect_endpoint import HopEndpoint
from nitroproxy.proxy.deadlines import Deadlines
from nitroproxy.proxy.upstream import Pool
from nitroproxy.telemetry.metrics import ConnectMetrics, one_counter
from nitroproxy.telemetry.shipping import LogShipper, post_to


class ShippedLog:
    """A process's log on its way to the host.

    Each process of the daemon sends its own, in a session of its own, and not through the supervisor: that would have
    to carry a line for each request of every worker. What a worker that is killed has not sent is lost.
    """

    def __init__(self, reactor: Any, settings: Settings, deadlines: Deadlines) -> None:
        endpoint, place = hop_client(reactor, settings, "host", settings.logging.port)
        self._connects = ConnectMetrics("logs")
        failure = f"cannot reach the host's log listener at {place}"
        buffer_bytes = settings.limits.buffer_bytes
        host = HopEndpoint(endpoint, Kind.RELAY_UNAVAILABLE, failure, buffer_bytes, self._connects.tried)
        pool = Pool(
            lambda key, identity: host, deadlines, pool_settings(settings.limits), end_is_proof=lambda key: False
        )
        shipper = self.shipper = LogShipper(post_to(pool, deadlines), reactor)
        lost = one_counter("log_lines_not_shipped", "Log lines lost before the host had them.", lambda: shipper.dropped)
        self.sources = [self._connects.collect, lost]
