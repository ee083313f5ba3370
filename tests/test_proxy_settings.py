"""What listeners, exchanges and pools allow: `nitroproxy.proxy.settings`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.config.schema import Settings
from nitroproxy.policy import ByPattern
from nitroproxy.proxy.settings import ExchangeSettings, ListenerSettings


class RetryTests(SynchronousTestCase):
    """The delays before retries."""

    def test_delays(self) -> None:
        """They double on average, and all together stay below retry_delay, however the chances fall."""
        settings = ExchangeSettings(max_retries=3, retry_delay=7.0)
        for _ in range(100):
            delays = [settings.delay_before(retry) for retry in (1, 2, 3)]
            self.assertLess(sum(delays), 7.0)
            for delay, share in zip(delays, (1.0, 2.0, 4.0), strict=True):
                self.assertTrue(0.4 * share <= delay <= 0.8 * share)

    def test_no_delay(self) -> None:
        """A retry_delay of 0 is none."""
        self.assertEqual(ExchangeSettings(max_retries=1, retry_delay=0.0).delay_before(1), 0.0)


class TunnelTests(SynchronousTestCase):
    """How long a tunnel may be silent."""

    def times(self, tunnel: float, idle: float) -> tuple[float, ...]:
        by_pattern = ByPattern({"api.example:443": 900.0}, 300.0)
        exchange = ExchangeSettings(response_timeout=by_pattern)
        settings = ListenerSettings(tunnel_timeout=tunnel, idle_timeout=idle, exchange=exchange)
        self.assertEqual(
            settings.tunnel_times("other.example", 443)[::2], settings.tunnel_times("api.example", 443)[::2]
        )
        return settings.tunnel_times("api.example", 443)

    def test_unanswered(self) -> None:
        """While the client waits for an answer, no less than the destination's response_timeout."""
        self.assertEqual(self.times(100.0, 60.0), (100.0, 900.0, 60.0))
        self.assertEqual(self.times(3600.0, 60.0), (3600.0, 3600.0, 60.0))

    def test_shortest(self) -> None:
        """An idle_timeout that is longer than tunnel_timeout is cut to it."""
        self.assertEqual(self.times(30.0, 60.0).index(30.0), 0)
        self.assertEqual(self.times(30.0, 60.0)[2], 30.0)


class DefaultTests(SynchronousTestCase):
    """The engine's defaults."""

    def test_same_as_the_configurations(self) -> None:
        """A setting that is left out has the value that the configuration's key has when it is left out."""
        limits, listener = Settings().limits, ListenerSettings()
        for name in (
            "connections",
            "header_timeout",
            "idle_timeout",
            "tunnel_timeout",
            "connect_timeout",
            "buffer_bytes",
        ):
            self.assertEqual(getattr(listener, name), getattr(limits, name), name)
        self.assertEqual(listener.exchange.response_timeout.of("a.example", 443), limits.response_timeout)
        self.assertEqual(listener.exchange.tunnel_timeout, limits.tunnel_timeout)
