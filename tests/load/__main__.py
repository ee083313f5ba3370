"""`python -m tests.load [--small] [--seconds S] STAGE…`: runs the trials named, all of them without a name."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

from tests.load import drain, stages, workers
from tests.load.abandoned import abandoned
from tests.load.soak import soak
from tests.load.stages import Failed

#: Each trial at full size and small.
STAGES: Final[dict[str, tuple[Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]]] = {
    "idle": (lambda: stages.idle(10_000), lambda: stages.idle(300)),
    "drippers": (lambda: stages.drippers(1000), lambda: stages.drippers(20)),
    "bulk": (lambda: stages.bulk(1 << 30, 8), lambda: stages.bulk(8 << 20, 4)),
    "churn": (lambda: stages.churn(100_000), lambda: stages.churn(400)),
    "cuts": (lambda: stages.cuts(1000), lambda: stages.cuts(18)),
    "descriptors": (lambda: stages.descriptors(200), lambda: stages.descriptors(64)),
    "recovery": (stages.recovery, stages.recovery),
    "drain": (lambda: drain.drain(200), lambda: drain.drain(10)),
    "connects": (lambda: drain.connects(30), lambda: drain.connects(2)),
    "workers-connects": (lambda: drain.connects(30, *workers.TWO), lambda: drain.connects(1, *workers.TWO)),
    "blocked-log": (lambda: stages.blocked_log(30_000), lambda: stages.blocked_log(1200)),
    "logs": (stages.logs, stages.logs),
    "reload": (stages.reload, stages.reload),
    "stalled": (stages.stalled, stages.stalled),
    "workers": (lambda: workers.workers(400), lambda: workers.workers(40)),
    "workers-drain": (lambda: drain.drain(200, *workers.TWO), lambda: drain.drain(10, *workers.TWO)),
    "workers-reload": (workers.reload, workers.reload),
    "abandoned": (lambda: abandoned(10_000), lambda: abandoned(60)),
    "workers-ends": (workers.ends, workers.ends),
    "workers-killed": (lambda: workers.killed(60), lambda: workers.killed(5)),
    "workers-starved": (workers.starved, workers.starved),
    "workers-interrupted": (workers.interrupted, workers.interrupted),
    "limit": (lambda: stages.limit(100), lambda: stages.limit(5)),
}


def main() -> int:
    """Run; the exit status is 1 if a trial failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--small", action="store_true", help="small sizes: seconds instead of minutes")
    parser.add_argument("--seconds", type=float, default=60, help="how long soak takes [60]")
    parser.add_argument("--seed", type=int, default=None, help="what soak's chances come from")
    parser.add_argument("stage", nargs="*", metavar="STAGE", help=f"{', '.join(STAGES)}, soak [all but soak]")
    arguments = parser.parse_args()
    unknown = set(arguments.stage) - {*STAGES, "soak"}
    if unknown:
        parser.error(f"there is no stage {', '.join(sorted(unknown))}; there are {', '.join(STAGES)} and soak")
    failed = 0
    for name in arguments.stage or STAGES:
        print(f"{name}:", flush=True)
        began = time.monotonic()
        try:
            if name == "soak":
                asyncio.run(soak(arguments.seconds, arguments.seed))
            else:
                asyncio.run(_run(STAGES[name][arguments.small]))
        except (Failed, OSError) as error:
            failed += 1
            print(f"  FAILED, expected {error} ({time.monotonic() - began:.1f} s)", flush=True)
        else:
            print(f"  good ({time.monotonic() - began:.1f} s)", flush=True)
    return 1 if failed else 0


async def _run(stage: Callable[[], Awaitable[None]]) -> None:
    await stage()


if __name__ == "__main__":
    sys.exit(main())
