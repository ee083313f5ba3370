"""What a question of the DNS is answered. Pure but for the file of names; no wire format, no sockets.

Nothing is looked up outside: a name that the policy allows gets addresses that stand for it, and the host learns it
when it is connected to. A name that the policy denies does not exist (NXDOMAIN: at REFUSED glibc and Go ask again), and
that for every type (musl gives up at one NXDOMAIN).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from nitroproxy.policy import Policy
from nitroproxy.target import normalize_host
from nitroproxy.transparent.names import NameTable, NoMoreNumbers
from nitroproxy.transparent.ranges import OWN_V4, OWN_V6, packed_v4, packed_v6

#: Types of records (IANA, DNS parameters).
A: Final = 1
AAAA: Final = 28

_LOOPBACK_V4: Final = b"\x7f\0\0\1"
_LOOPBACK_V6: Final = bytes(15) + b"\1"


class Code(enum.IntEnum):
    """Response codes (RFC 1035 section 4.1.1)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5


class Outcome(enum.StrEnum):
    """What became of a question: a closed set, as a metric label."""

    #: An address.
    ANSWERED = "answered"
    #: The name is allowed, and has no records of this type.
    NO_SUCH_TYPE = "no_such_type"
    #: The policy does not allow the name on any port.
    DENIED = "denied"
    #: It is no name that could be connected to.
    INVALID = "invalid"
    #: All addresses are taken.
    NO_MORE_NUMBERS = "no_more_numbers"
    #: The file of names could not be written.
    FAILED = "failed"
    #: The message is no query that is answered; see `nitroproxy.transparent.dns_server`.
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    :ivar packed: the address, in network byte order; empty when there is none.
    :ivar detail: why there is none, for the log.
    """

    code: Code
    outcome: Outcome
    packed: bytes = b""
    detail: str = ""


_NOTHING: Final = Answer(Code.NOERROR, Outcome.NO_SUCH_TYPE)


class Answers:
    """Answers questions about names.

    :param own_name: gives this machine's host name.
    """

    def __init__(self, table: NameTable, policy: Policy, own_name: Callable[[], str]) -> None:
        self._table = table
        self._own_name = own_name
        self.use(policy)

    def use(self, policy: Policy) -> None:
        """From now on answer by *policy*."""
        self._refusal: Callable[[str], str] = lru_cache(maxsize=4096)(lambda name: _refusal(policy, name))

    def answer(self, question: bytes, kind: int) -> Answer:
        """The answer to a question.

        :param question: the name as it was asked for, without the root's dot.
        :param kind: the type of the records asked for.
        """
        local = self._local(question.lower(), kind)
        if local is not None:
            return local
        try:
            name = normalize_host(question.decode("ascii"))
        except ValueError as error:
            return Answer(Code.NXDOMAIN, Outcome.INVALID, detail=str(error))
        refusal = self._refusal(name)
        if refusal:
            return Answer(Code.NXDOMAIN, Outcome.DENIED, detail=refusal)
        if kind not in (A, AAAA):
            return _NOTHING
        try:
            number = self._table.number_of(name)
        except NoMoreNumbers:
            detail = f"{self._table.most} names have an address, and none is given away"
            return Answer(Code.SERVFAIL, Outcome.NO_MORE_NUMBERS, detail=detail)
        except OSError as error:
            return Answer(Code.SERVFAIL, Outcome.FAILED, detail=f"the file of names: {error.strerror or error}")
        return Answer(Code.NOERROR, Outcome.ANSWERED, (packed_v4 if kind == A else packed_v6)(number))

    def _local(self, name: bytes, kind: int) -> Answer | None:
        """The answer for this machine's own names; None for all others."""
        if name == b"localhost" or name.endswith(b".localhost"):  # RFC 6761 section 6.3
            addresses = {A: _LOOPBACK_V4, AAAA: _LOOPBACK_V6}
        elif name and name == self._own_name().lower().encode("utf-8", "replace"):
            addresses = {A: OWN_V4.packed, AAAA: OWN_V6.packed}
        else:
            return None
        return Answer(Code.NOERROR, Outcome.ANSWERED, addresses[kind]) if kind in addresses else _NOTHING


def _refusal(policy: Policy, name: str) -> str:
    """Why there are no addresses for *name*; empty if there are."""
    if name.replace(".", "").isdecimal() or ":" in name:
        return f"{name} is an address"
    if "." not in name and not policy.spells(name):
        return f"{name} is one label, and no rule of egress.allow names it"
    return policy.reason_against(name)
