"""Documents as they are, asked for otherwise: nonce, age, debug, root and policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from nitroproxy.attestation import Entry, Policy
from nitroproxy.attestation.refusal import Rule
from tests.attestation.cases import Case
from tests.attestation.real import Real


def verdicts(real: Real, now: datetime) -> Iterator[Case]:
    """What becomes of the document of *real*, depending on what is asked for."""
    case = Case(real.name, real.data, (), real.policy(), now)
    yield from _nonces(case, real.nonce)
    yield from _ages(case, real)
    yield from _roots(case)
    yield from _policies(case, real)


def _named(case: Case, label: str, *rules: Rule) -> Case:
    return replace(case, label=f"{case.label} {label}", rules=rules)


def _nonces(case: Case, nonce: bytes | None) -> Iterator[Case]:
    if nonce:
        yield replace(_named(case, "its nonce"), nonce=nonce)
        yield replace(_named(case, "its nonce cut", "nonce"), nonce=nonce[:-1])
    yield replace(_named(case, "another nonce", "nonce"), nonce=b"\1" * 32)
    yield replace(_named(case, "a longer nonce", "nonce"), nonce=(nonce or b"") + b"\0")
    yield replace(_named(case, "an empty nonce", "nonce"), nonce=b"")


def _ages(case: Case, real: Real) -> Iterator[Case]:
    five, second = timedelta(minutes=5), timedelta(seconds=1)
    case = replace(case, policy=real.policy(five))
    yield replace(_named(case, "just young enough"), now=real.signed + five)
    yield replace(_named(case, "1 s too old", "age"), now=real.signed + five + second)
    yield replace(_named(case, "a clock 59 s slow"), now=real.signed - timedelta(seconds=59))
    yield replace(_named(case, "a clock 61 s slow", "age"), now=real.signed - timedelta(seconds=61))
    yield replace(_named(case, "archived from the future", "age"), now=real.signed - five, policy=real.policy())


def _roots(case: Case) -> Iterator[Case]:
    yield replace(_named(case, "no root", "root"), roots=frozenset())
    yield replace(_named(case, "another root", "root"), roots=frozenset({bytes(32)}))


def _policies(case: Case, real: Real) -> Iterator[Case]:
    debug = bool(real.record["debug"])
    if debug:
        # A policy for debug enclaves cannot be made without allow_debug: take one for the role and the instance.
        strict = _policy({0: b"\1" * 48, 1: b"\1" * 48, 2: b"\1" * 48, 4: real.pcrs[4]}, debug=False)
        yield replace(_named(case, "debug not allowed", "debug"), policy=strict)
    else:
        yield replace(_named(case, "debug not asked for"), policy=real.policy(allow_debug=False))
    for index, value in real.pcrs.items():
        if debug and index < 3:
            continue
        wrong = {**real.pcrs, index: bytes([value[0] ^ 1]) + value[1:]}
        yield replace(_named(case, f"PCR{index} differs", "policy"), policy=_policy(wrong, debug=debug))
    absent = {**real.pcrs, 31: bytes(48)}
    yield replace(_named(case, "PCR31 is absent, not zero", "policy"), policy=_policy(absent, debug=debug))


def _policy(pcrs: dict[int, bytes], *, debug: bool) -> Policy:
    return Policy((Entry("one", pcrs),), None, allow_debug=debug)
