"""SIGHUP: load the configuration anew and change what can change in a running daemon, all of it or nothing.

`Reloader` holds the configuration in force; everything else is given what it needs of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import msgspec
from prometheus_client.core import GaugeMetricFamily, Metric
from twisted.logger import Logger

from nitroproxy.config.load import Configuration, ConfigurationError
from nitroproxy.config.schema import Settings

_log: Final = Logger()

#: What can change: whole sections, or single keys. Everything else needs a restart.
RELOADABLE: Final = frozenset(
    {
        "egress.allow",
        "egress.deny",
        "egress.allow_addresses",
        "egress.upstream_proxy",
        "tls.allow_plaintext",
        "logging.level",
    }
    | {"tls.ca_file", "tls.extra_ca_file", "tls.certificate_profile", "tls.client_certificates"}
    | {"limits", "host_proxy.max_retries", "host_proxy.retry_delay", "host_proxy.names", "host_proxy.rewrite_location"}
    | {"host_proxy.drain_delay"}
)


class Unloadable(Exception):
    """A part cannot use the configuration; the message names what is wrong."""


@dataclass(frozen=True)
class Prepared:
    """A configuration that can be put in force.

    :ivar configuration: what is in force then.
    :ivar commit: puts it in force; cannot fail. To be called once, before anything else is prepared, or not at all.
    """

    configuration: Configuration
    commit: Callable[[], None]


class Reloader:
    """Reloads when called.

    :param configuration: the one to start with.
    :param load: gives the new one; raises `ConfigurationError`.
    :param prepare: given the new settings, which differ from those in force only in what can change; builds what they
        need and returns what puts it in force, which cannot fail; raises `Unloadable`.
    :param now: the time of day, in seconds since the epoch.
    :ivar configuration: the one in force.
    """

    def __init__(
        self,
        configuration: Configuration,
        load: Callable[[], Configuration],
        prepare: Callable[[Settings], Callable[[], object]],
        now: Callable[[], float],
    ) -> None:
        self.configuration = configuration
        self._load = load
        self._prepare = prepare
        self._now = now
        self._succeeded_at = now()
        self._successful = True

    def drain_timeout(self) -> float:
        """Seconds that a drain may take, by the configuration in force."""
        return self.configuration.settings.limits.drain_timeout

    def __call__(self) -> bool:
        """Reload; returns whether the new configuration is in force."""
        try:
            prepared = self.prepare()
        except ConfigurationError as error:
            return self.failed(error.problems)
        prepared.commit()
        return True

    def prepare(self) -> Prepared:
        """Load the configuration and build what it needs. Changes nothing: that is left to `Prepared.commit`.

        :raises ConfigurationError: when it cannot be put in force.
        """
        wanted = self._load()
        configuration = _changed(self.configuration, wanted)
        try:
            commit = self._prepare(configuration.settings)
        except Unloadable as error:
            raise ConfigurationError([str(error)]) from error
        return Prepared(configuration, partial(self._commit, configuration, wanted, commit))

    def _commit(self, configuration: Configuration, wanted: Configuration, commit: Callable[[], object]) -> None:
        commit()
        ignored = list(_differences(configuration, wanted))
        if ignored:
            _log.warn(
                "reloaded; not changed without a restart: {ignored}", event="reload_partial", ignored=", ".join(ignored)
            )
        else:
            _log.info("reloaded", event="reloaded")
        self.configuration = configuration
        self._succeeded_at = self._now()
        self._successful = True

    def obstacle(self) -> str:
        """Why the configuration could not be loaded now; empty when it could. Changes nothing, and never raises."""
        try:
            self.prepare()
        except ConfigurationError as error:
            return "; ".join(error.problems)
        except Exception as error:
            _log.failure("the configuration cannot be examined", event="callback_failed")
            return f"{type(error).__name__}: {error}"
        return ""

    def failed(self, problems: Iterable[str]) -> bool:
        """Log each problem and count the last reload as failed; returns False. The caller does so when another process
        cannot put in force what this one could."""
        self._successful = False
        for problem in problems:
            _log.error("not reloaded, the old configuration stays: {problem}", event="reload_failed", problem=problem)
        return False

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


def _changed(configuration: Configuration, wanted: Configuration) -> Configuration:
    """*configuration* with all of *wanted* that can change."""
    sections = {}
    for name in Settings.__struct_fields__:
        old, new = getattr(configuration.settings, name), getattr(wanted.settings, name)
        values = {key: getattr(new, key) for key in new.__struct_fields__ if _can_change(f"{name}.{key}")}
        sections[name] = msgspec.structs.replace(old, **values)
    sources = {key: source for key, source in configuration.sources.items() if not _can_change(key)}
    sources |= {key: source for key, source in wanted.sources.items() if _can_change(key)}
    return replace(configuration, settings=Settings(**sections), sources=sources)


def _differences(configuration: Configuration, wanted: Configuration) -> Iterator[str]:
    in_force = {key: value for key, value, _ in configuration.rows()}
    return (key for key, value, _ in wanted.rows() if in_force[key] != value)


def _can_change(key: str) -> bool:
    return key in RELOADABLE or key.partition(".")[0] in RELOADABLE
