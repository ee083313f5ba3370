"""A failure of anything that connects, as a failure that a client can be given.

The rule: what is not a `ProxyError` is a defect of ours. The client gets `Kind.INTERNAL_ERROR`, and the log gets the
traceback, once: every place that turns a Twisted failure into a response does so with `as_proxy_error`.
"""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger
from twisted.python.failure import Failure

from nitroproxy.errors import Kind, ProxyError

_log: Final = Logger()


def as_proxy_error(failure: Failure) -> ProxyError:
    """The `ProxyError` in *failure*; for any other exception, `Kind.INTERNAL_ERROR`, after its traceback is logged."""
    if isinstance(failure.value, ProxyError):
        return failure.value
    _log.failure("unexpected exception while connecting", failure=failure, event="connect_failed_unexpectedly")
    return ProxyError(Kind.INTERNAL_ERROR, f"unexpected {failure.type.__name__ if failure.type else 'failure'}")
