"""Where the daemons' log events go: standard output, above a level, as text for people or JSON lines for machines."""

from __future__ import annotations

import sys
from typing import Final, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    jsonFileLogObserver,
    textFileLogObserver,
)

#: The configuration's level names, as twisted.logger calls them.
_LEVELS: Final = {
    "DEBUG": LogLevel.debug,
    "INFO": LogLevel.info,
    "WARN": LogLevel.warn,
    "ERROR": LogLevel.error,
    "CRITICAL": LogLevel.critical,
}


def log_observer(level: str, form: str, output: TextIO = sys.stdout) -> ILogObserver:
    """An observer that writes events of *level* and above to *output*.

    :param level: ``DEBUG``, ``INFO``, ``WARN``, ``ERROR`` or ``CRITICAL``.
    :param form: ``text``, or ``json`` (one object a line).
    """
    observer = jsonFileLogObserver(output, "") if form == "json" else textFileLogObserver(output)
    return FilteringLogObserver(observer, [LogLevelFilterPredicate(_LEVELS[level])])
