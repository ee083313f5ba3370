"""Runs contenders in interleaved pairs, the subject, then a peer, so that both run under the same conditions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Row, Sample, Unmeasured, figures_of, ratio_of

#: Runs a contender once and returns what was measured.
Run = Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure.

    :ivar rounds: how often each pair is run.
    :ivar seconds: the duration of one run, where time bounds it.
    :ivar quick: fewer and smaller runs, for work on the code.
    :ivar everything: measure the forward proxies too.
    :ivar against: another checkout, whose nitroproxy is measured in place of the other programs.
    :ivar enclave_processes: compared with one, in the case of that name.
    """

    rounds: int
    seconds: int
    quick: bool
    directory: Path
    enclave_processes: int = 2
    everything: bool = False
    against: Path | None = None


def compare(subject: str, runs: Mapping[str, Run | Unmeasured], key: str, rounds: int) -> tuple[Row, ...]:
    """Run *subject* before each of the others, *rounds* times.

    :param runs: by contender; an `Unmeasured` in place of a run says why there is none.
    :param key: the quantity of which ratios are taken.
    :returns: a row for each contender, the subject's first. One that failed has a reason instead of figures.
    """
    own: list[Sample] = []
    pairs: dict[str, list[tuple[Sample, Sample]]] = {name: [] for name in runs if name != subject}
    reasons = {name: str(run) for name, run in runs.items() if isinstance(run, Unmeasured)}
    for _ in range(rounds):
        for name in pairs or [subject]:
            if subject in reasons or name in reasons:
                continue
            first = _attempt(subject, runs, reasons)
            if first is None:
                continue
            own.append(first)
            if name == subject:
                continue
            second = _attempt(name, runs, reasons)
            if second is not None:
                pairs[name].append((first, second))
    rows = [Row(subject, unmeasured=reasons[subject]) if subject in reasons else _row(subject, own)]
    for name, measured in pairs.items():
        if name not in reasons and not measured:
            reasons[name] = f"there is nothing to compare it with: {reasons.get(subject, 'no run')}"
        if name in reasons:
            rows.append(Row(name, unmeasured=reasons[name]))
        else:
            rows.append(Row(name, figures_of([second for _, second in measured]), ratio_of(measured, key)))
    return tuple(rows)


def _row(subject: str, own: list[Sample]) -> Row:
    return Row(subject, figures_of(own)) if own else Row(subject, unmeasured="no peer to be paired with could run")


def _attempt(name: str, runs: Mapping[str, Run | Unmeasured], reasons: dict[str, str]) -> Sample | None:
    run = runs[name]
    assert not isinstance(run, Unmeasured)
    try:
        return run()
    except Unmeasured as error:
        reasons[name] = str(error)
        print(f"  {name}: {error}", file=sys.stderr, flush=True)
        return None


def prepare(start: Callable[[], Run]) -> Run | Unmeasured:
    """*start* a contender and warm it up with one run; returns why if that did not work."""
    try:
        run = start()
        run()
    except Unmeasured as error:
        return error
    return run
