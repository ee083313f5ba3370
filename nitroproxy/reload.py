"""SIGHUP: the configuration is loaded anew and what can change in a running daemon changes, all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from twisted.logger import Logger

from nitroproxy.config import Configuration, ConfigurationError

_log: Final = Logger()

#: What can change: whole sections, or single keys. All else needs a restart.
RELOADABLE: Final = frozenset(
    {"egress.allow", "egress.deny", "egress.allow_addresses", "tls.ca_file", "tls.allow_plaintext", "logging.level"}
    | {"limits", "host_proxy.max_retries", "host_proxy.retry_delay"}
)


class Unloadable(Exception):
    """A part cannot take the new configuration; the message names what is wrong."""


class Reloader:
    """Reloads when called.

    :param configuration: the one that is in force.
    :param load: gives the new one; raises `ConfigurationError`.
    :param prepare: makes ready what a configuration changes and returns what puts it in force, which cannot fail;
        raises `Unloadable`.
    :param now: the time of day, in seconds since the epoch.
    """

    def __init__(
        self,
        configuration: Configuration,
        load: Callable[[], Configuration],
        prepare: Callable[[Configuration], Callable[[], object]],
        now: Callable[[], float],
    ) -> None:
        self._configuration = configuration
        self._load = load
        self._prepare = prepare
        self._now = now
        self._succeeded_at = now()
        self._successful = True

    def __call__(self) -> bool:
        """Reload; whether the new configuration is in force."""
        try:
            configuration = self._load()
            commit = self._prepare(configuration)
        except ConfigurationError as error:
            return self._failed(list(error.problems))
        except Unloadable as error:
            return self._failed([str(error)])
        commit()
        ignored = [key for key in self._changes(configuration) if not _can_change(key)]
        if ignored:
            _log.warn(
                "reloaded; not changed without a restart: {ignored}", event="reload_partial", ignored=", ".join(ignored)
            )
        else:
            _log.info("reloaded", event="reloaded")
        self._configuration = configuration
        self._succeeded_at = self._now()
        self._successful = True
        return True

    def _failed(self, problems: list[str]) -> bool:
        self._successful = False
        for problem in problems:
            _log.error("not reloaded, the old configuration stays: {problem}", event="reload_failed", problem=problem)
        return False

    def _changes(self, configuration: Configuration) -> Iterator[str]:
        old = {key: value for key, value, _ in self._configuration.rows()}
        return (key for key, value, _ in configuration.rows() if old[key] != value)

    def collect(self) -> Iterator[Metric]:
        """When the configuration in force was loaded, and whether the last attempt succeeded."""
        for name, text, value in (
            (
                "last_reload_successful",
                "Whether the last load of the configuration succeeded.",
                float(self._successful),
            ),
            (
                "last_reload_success_timestamp_seconds",
                "When the configuration in force was loaded.",
                self._succeeded_at,
            ),
        ):
            family = GaugeMetricFamily(f"nitroproxy_config_{name}", text, labels=[])
            family.add_metric([], value)
            yield family


def _can_change(key: str) -> bool:
    return key in RELOADABLE or key.partition(".")[0] in RELOADABLE
