"""What a case is, and how it is judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from nitroproxy.attestation import AWS_ROOTS, Policy, Refused, verify
from nitroproxy.attestation.refusal import Rule

#: Rules that a document can only break once its signature is verified, and the one that a document must never reach.
#: A document that was changed after it was signed is never refused for one of these.
BEYOND_THE_SIGNATURE: frozenset[Rule] = frozenset({"age", "debug", "policy", "internal"})


@dataclass(frozen=True)
class Case:
    """A document and what must become of it.

    :ivar rules: it must be refused for one of these; empty if it must be accepted; None if it must be refused for any
        rule up to the signature.
    """

    label: str
    data: bytes
    rules: Collection[Rule] | None
    policy: Policy
    now: datetime
    nonce: bytes | None = None
    roots: Collection[bytes] = AWS_ROOTS

    def wrong(self) -> tuple[str | None, str]:
        """What is wrong, if anything, with what becomes of it; and what becomes of it."""
        try:
            verify(self.data, self.policy, now=self.now, nonce=self.nonce, roots=self.roots)
        except Refused as refusal:
            good = refusal.rule not in BEYOND_THE_SIGNATURE if self.rules is None else refusal.rule in self.rules
            return None if good else f"{self.label}: {refusal}", refusal.rule
        except BaseException as error:
            return f"{self.label}: {type(error).__name__}: {error}", "stray"
        return None if self.rules == () else f"{self.label}: ACCEPTED", "accepted"


@dataclass
class Tally:
    """The outcome of many cases.

    :ivar outcomes: how many were accepted, or refused for each rule.
    :ivar wrong: what should not have happened.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def judge(self, cases: Iterable[Case]) -> None:
        """Judge the cases."""
        for case in cases:
            wrong, outcome = case.wrong()
            self.outcomes[outcome] += 1
            if wrong is not None:
                self.wrong.append(wrong)

    @property
    def refused(self) -> int:
        """How many were refused."""
        return self.outcomes.total() - self.outcomes["accepted"] - self.outcomes["stray"]
