"""The limit on open descriptors (RLIMIT_NOFILE): raised as far as the process may, and compared with what
``limits.connections`` needs.

A connection that a daemon proxies takes two descriptors, so a limit that is too low shows only under load: clients are
reset where they should get 503.
"""

from __future__ import annotations

import contextlib
import resource
from typing import Final

from twisted.logger import Logger

_log: Final = Logger()

#: Descriptors of a process besides its connections: listeners, logs, pipes, the epoll set.
_BESIDES: Final = 64
#: The most that Linux allows by default (fs.nr_open): where the hard limit is none, the soft limit becomes this.
_MOST: Final = 1 << 20


def raise_limit() -> int:
    """Raise the soft limit to the hard one, for this process and those that it starts.

    Under our units systemd has set both (``LimitNOFILE=``) and the sandbox refuses the call: the limit then stays.

    :returns: the soft limit that is now in force.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return soft


def check_limit(limit: int, connections: int) -> None:
    """Warn when *connections*, which is ``limits.connections``, do not fit into *limit* descriptors."""
    needed = 2 * connections + _BESIDES
    if limit != resource.RLIM_INFINITY and needed > limit:
        _log.warn(
            "limits.connections of {connections} needs at least {needed} descriptors and the limit is {limit}: raise"
            " the limit (LimitNOFILE= in the unit, or ulimit -n) or lower limits.connections",
            event="descriptors_short",
            connections=connections,
            needed=needed,
            limit=limit,
        )
