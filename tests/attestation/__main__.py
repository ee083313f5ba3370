"""All cases, each once: ``python -m tests.attestation`` takes about a quarter of an hour of one core.

Prints how many there were and what became of them. The exit status is 1 if a document was accepted that must be
refused, refused that must be accepted, refused for another rule than the one it breaks, or if anything but `Refused`
was raised.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from tests.attestation.cases import Case, Tally
from tests.attestation.certificate_rules import CertificateRules
from tests.attestation.field_rules import FieldRules
from tests.attestation.mutations import Mutator
from tests.attestation.pki import pki
from tests.attestation.real import DIRECTORY, Real, load
from tests.attestation.verdict_rules import verdicts


def rules() -> Iterator[Case]:
    """Documents of our own PKI, one rule broken at a time."""
    chain = pki()
    yield from FieldRules(chain).cases()
    yield from CertificateRules(chain).cases()


def mutated(real: Real, other: Real, now: datetime, *, every: bool, edits: int) -> Iterator[Case]:
    """The document of *real* in every other form; with *every*, with each of its bits changed; with random *edits*."""
    mutator = Mutator(real, other, now)
    yield from mutator.structure()
    yield from mutator.cuts()
    yield from mutator.payloads(1 if every else 8)
    yield from mutator.bits(every=every)
    yield from mutator.edits(Random(real.name), edits)


def main() -> int:
    """Judge all cases; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.attestation", description=__doc__)
    parser.add_argument("--documents", type=Path, default=DIRECTORY, help="a directory with a documents.json")
    parser.add_argument("--every", type=int, default=4, help="of how many documents each bit is changed [4]")
    parser.add_argument("--edits", type=int, default=2000, help="random changes of each document [2000]")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # cryptography warns of serial numbers that are not positive.
    now = datetime.now(UTC)
    total = Tally()
    report("rules", rules(), total)
    genuine = [real for real in load(arguments.documents) if real.genuine]
    for place, real in enumerate(genuine):
        report(f"{real.name} verdicts", verdicts(real, now), total)
        every = place < arguments.every
        cases = mutated(real, genuine[place - 1], now, every=every, edits=arguments.edits)
        report(f"{real.name} mutated", cases, total)
    print(f"{total.outcomes.total()} cases, {total.refused} refused, {total.outcomes['accepted']} accepted")
    print(", ".join(f"{outcome} {count}" for outcome, count in total.outcomes.most_common()))
    print(f"{len(total.wrong)} wrong")
    return 1 if total.wrong else 0


def report(label: str, cases: Iterator[Case], total: Tally) -> None:
    """Judge *cases*, print the outcome, add it to *total*."""
    begun = time.monotonic()
    tally = Tally()
    tally.judge(cases)
    print(f"{label}: {tally.outcomes.total()} cases, {time.monotonic() - begun:.0f} s", flush=True)
    for wrong in tally.wrong:
        print(f"WRONG {wrong}", flush=True)
    total.outcomes += tally.outcomes
    total.wrong += tally.wrong


if __name__ == "__main__":
    sys.exit(main())
