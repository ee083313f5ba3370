"""Why the enclave ended, in its own words: kept for the health page while the enclave does not answer.

The process that takes the enclave's log keeps the words in an `EnclaveEnd`. The pages of any process ask for them and
have them forgotten by the questions `WORDS` and `FORGET` (`nitroproxy.daemon.role.AskOnce`).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from nitroproxy.telemetry.logs import printable, timestamp

#: The questions: for the words, with None; to forget the words that are given.
WORDS: Final = "enclave_end"
FORGET: Final = "enclave_answers"

#: The events of `nitroproxy.enclave.init_root` with which an enclave ends, and the one that says that it serves.
_ENDS: Final = frozenset({"enclave_did_not_start", "enclave_ended"})
_SERVES: Final = "daemon_ready"
#: Bytes of the words that are kept, at the beginning, which has the reason, and at the end, which has the last output.
_FIRST_BYTES: Final = 192
_LAST_BYTES: Final = 288
#: Seconds for which they are kept although the enclave answers: it says them a moment before its end.
_LAST_MOMENT: Final = 15.0


class EnclaveEnd:
    """The enclave's last account of its own end.

    The enclave is not trusted with the page: the words are bounded and printable, the time is this machine's, and the
    page says whose they are.

    :param now: the time in seconds since the epoch.
    :ivar words: when the enclave said what, for a person; empty while it is not known to have ended.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.words = ""
        self._said_at = 0.0

    @property
    def answerers(self) -> Mapping[str, Callable[[Any], Coroutine[Any, Any, Any]]]:
        """See `nitroproxy.daemon.role.Once`."""
        return {WORDS: self._tell, FORGET: self._forget}

    def take(self, fields: Mapping[str, Any]) -> None:
        """Look at an event of the enclave's log. The log intake calls this for each."""
        if fields["event"] in _ENDS:
            self._said_at = self._now()
            self.words = f"at {timestamp(self._said_at)} the enclave said: {_bounded(fields['message'])}"
        elif fields["event"] == _SERVES:
            self.words = ""

    async def _tell(self, about: Any) -> Any:
        return self.words

    async def _forget(self, about: Any) -> Any:
        """Forget the words, unless they are new or the enclave has ended again since they were read."""
        if self.words == about and abs(self._now() - self._said_at) > _LAST_MOMENT:
            self.words = ""


def _bounded(message: str) -> str:
    """*message* in at most `_FIRST_BYTES` and `_LAST_BYTES` and an ellipsis, with what does not print escaped."""
    if len(message) > _FIRST_BYTES + _LAST_BYTES:
        message = message[:_FIRST_BYTES] + "…" + message[-_LAST_BYTES:]
    data = printable(message).encode("utf-8")
    if len(data) <= _FIRST_BYTES + _LAST_BYTES:
        return data.decode("utf-8")
    return data[:_FIRST_BYTES].decode("utf-8", "ignore") + "…" + data[-_LAST_BYTES:].decode("utf-8", "ignore")
