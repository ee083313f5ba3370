"""Load with faults for as long as asked: no wrong byte, no mixed answers, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from statistics import linear_regression, median
from typing import Final

from tests.load import client
from tests.load.client import BrokenOff, Connection, Verdict
from tests.load.faults import HARMLESS, Fault, Pair
from tests.load.stack import Daemon, Stack
from tests.load.stages import insist, report, settled, warm

_WORKERS: Final = 24
_MIB: Final = 1 << 20
#: What a client may ask, of a connection and for so many bytes.
_ASKS: Final = (
    client.get,
    partial(client.get, options="?framing=chunked"),
    partial(client.echo, chunked=False),
    partial(client.echo, chunked=True),
    client.upload,
)
#: The share of connections, each way, on which something is done.
_HARM: Final = 0.25


def _some_fault(chance: random.Random) -> Fault:
    bytes_before = int(10 ** chance.uniform(0, 5.5))
    return chance.choice(
        [
            Fault(latency=chance.uniform(0, 0.05)),
            Fault(piece=1 + int(10 ** chance.uniform(0, 2))),
            Fault(bandwidth=500_000),
            Fault(reset_after=bytes_before),
            Fault(truncate_after=bytes_before),
            Fault(stall_after=bytes_before),
        ]
    )


def _choose(chance: random.Random) -> Pair:
    """Most connections are left alone."""
    return (
        _some_fault(chance) if chance.random() < _HARM else HARMLESS,
        _some_fault(chance) if chance.random() < _HARM else HARMLESS,
    )


async def _work(stack: Stack, chance: random.Random, until: float, verdicts: Counter[Verdict]) -> None:
    """One client: connects in some way, asks for some things, sometimes goes away in the middle."""
    connects: list[Callable[[], Awaitable[Connection]]] = [
        stack.path_form,
        stack.path_form,
        stack.enclave_path_form,
        stack.tunnel,
    ]
    while time.monotonic() < until:
        try:
            connection = await chance.choice(connects)()
        except (OSError, BrokenOff):
            verdicts[Verdict.BROKEN] += 1
            continue
        for _ in range(chance.randrange(1, 12)):
            asked = chance.choice(_ASKS)(connection, int(10 ** chance.uniform(0, 5.7)))
            if chance.random() < 0.02:
                with contextlib.suppress(TimeoutError):
                    verdicts[await asyncio.wait_for(asked, chance.uniform(0, 0.05))] += 1
            else:
                verdicts[await asked] += 1
            if not connection.usable or time.monotonic() > until:
                break
        connection.abort()


class _Memory:
    """Resident memory of a daemon over time."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._began = time.monotonic()
        self._samples: list[tuple[float, int]] = []

    def sample(self) -> None:
        """Look now."""
        self._samples.append((time.monotonic() - self._began, self._daemon.resident))

    @property
    def slope(self) -> float:
        """KiB a minute over the second half."""
        half = self._samples[len(self._samples) // 2 :]
        return linear_regression([at for at, _ in half], [resident / 1024 for _, resident in half]).slope * 60

    @property
    def growth(self) -> float:
        """MiB from the third fifth to the last, their medians."""
        fifth = max(len(self._samples) // 5, 1)
        sizes = [resident / _MIB for _, resident in self._samples]
        return median(sizes[-fifth:]) - median(sizes[2 * fifth : 3 * fifth] or sizes[:1])


async def soak(seconds: float, seed: int | None = None) -> None:
    """Load with faults on every hop for *seconds*, then quiet, then a count of what is left."""
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    print(f"  seed {seed}", flush=True)
    chance = random.Random(seed)
    verdicts: Counter[Verdict] = Counter()
    async with Stack("limits.idle_timeout=3", "limits.response_timeout=3", "limits.connect_timeout=3") as stack:
        descriptors = await warm(stack)
        for proxy in (stack.to_enclave, stack.to_relay, stack.to_logs, stack.to_upstream):
            proxy.choose = lambda: _choose(chance)
        memories = [_Memory(stack.host), _Memory(stack.enclave)]
        until = time.monotonic() + seconds
        working = asyncio.gather(
            *(_work(stack, random.Random(f"{seed}/{i}"), until, verdicts) for i in range(_WORKERS))
        )
        while not working.done():
            await asyncio.wait([working], timeout=min(1.0, seconds / 40))
            for memory in memories:
                memory.sample()
        await working
        for proxy in (stack.to_enclave, stack.to_relay, stack.to_logs, stack.to_upstream):
            proxy.choose = lambda: (HARMLESS, HARMLESS)
        left = await settled(stack, descriptors)
        served = await client.get(await stack.path_form(), 1000)
        report(requests=verdicts.total(), **{verdict.value: verdicts[verdict] for verdict in Verdict})
        report(
            connections_harmed=sum(
                proxy.harmed for proxy in (stack.to_enclave, stack.to_relay, stack.to_logs, stack.to_upstream)
            ),
            descriptors_left=left,
            memory_KiB_a_minute={
                name: round(memory.slope) for name, memory in zip(("host", "enclave"), memories, strict=True)
            },
            growth_MiB=[round(memory.growth, 2) for memory in memories],
            tracebacks=stack.tracebacks(),
        )
        insist(verdicts[Verdict.WRONG] == 0, "no wrong byte")
        insist(verdicts[Verdict.MIXED] == 0, "no mixed answers")
        insist(verdicts[Verdict.RIGHT] > verdicts.total() / 2, "most requests to be served")
        insist(max(left.values()) <= 0, "no descriptor left")
        insist(all(memory.growth <= 4 for memory in memories), "memory flat")
        insist(served is Verdict.RIGHT, "to be served after it all")
        insist(stack.tracebacks() == 0, "no traceback in the logs")
