"""Load with faults for a given time: no wrong byte, no mixed answers, accounts that agree, nothing left."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from statistics import linear_regression, median
from typing import Final

from tests.load import client
from tests.load.client import BrokenOff, Connection, Verdict
from tests.load.faults import HARMLESS, Fault, Pair
from tests.load.stack import Stack, Surroundings
from tests.load.stages import insist, line, say, settled, warm

_WORKERS: Final = 24
_MIB: Final = 1 << 20
#: The requests of a client, on a connection and for so many bytes.
_ASKS: Final = (
    client.get,
    partial(client.get, options="?framing=chunked"),
    partial(client.echo, chunked=False),
    partial(client.echo, chunked=True),
    client.upload,
    client.last_get,
    client.who_am_i,
    client.log_in,
)
#: Seconds between two comparisons of the work under way at the clients and at the hops.
_AUDIT_INTERVAL: Final = 60.0
#: The share of connections, in each direction, that get a fault.
_HARM: Final = 0.25
#: The limits during a soak, in seconds: what a fault has stalled ends soon.
TIMES: Final = {f"{name}_timeout": 3 for name in ("idle", "tunnel", "response", "connect")}


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


class _Clients:
    """The work under way at the clients, and a gate that brings all of them to rest."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._busy = 0
        self._rest = asyncio.Event()
        self._tunnels: set[Connection] = set()

    @property
    def tunnels(self) -> int:
        """The CONNECT tunnels that clients keep and that the other side has not ended."""
        return sum(not connection.ended for connection in self._tunnels)

    @contextlib.contextmanager
    def keeping(self, connection: Connection, *, tunnel: bool) -> Iterator[None]:
        """A client keeps *connection*."""
        if tunnel:
            self._tunnels.add(connection)
        try:
            yield
        finally:
            self._tunnels.discard(connection)

    async def __aenter__(self) -> None:
        await self._open.wait()
        self._busy += 1
        self._rest.clear()

    async def __aexit__(self, *how: object) -> None:
        self._busy -= 1
        if not self._busy:
            self._rest.set()

    async def hold(self) -> None:
        """Hold new requests back, and wait until none is under way."""
        self._open.clear()
        if self._busy:
            await self._rest.wait()

    def let_go(self) -> None:
        """Let requests begin again."""
        self._open.set()


async def _work(
    stack: Surroundings, chance: random.Random, until: float, verdicts: Counter[Verdict], clients: _Clients
) -> None:
    """One client: connects in a random way, sends requests, pauses, gives up or leaves in the middle."""
    connects: list[Callable[[], Awaitable[Connection]]] = [
        stack.path_form,
        stack.path_form,
        stack.enclave_path_form,
        stack.tunnel,
    ]
    while time.monotonic() < until:
        connect = chance.choice(connects)
        async with clients:
            try:
                connection = await connect()
            except (OSError, BrokenOff):
                verdicts[Verdict.BROKEN] += 1
                continue
        connection.pause = chance.choice((0, 0, 0, 0, 0.2))
        with clients.keeping(connection, tunnel=connect == stack.tunnel):
            await _ask(connection, chance, until, verdicts, clients)
            chance.choice((connection.abort, connection.close))()


async def _ask(
    connection: Connection, chance: random.Random, until: float, verdicts: Counter[Verdict], clients: _Clients
) -> None:
    """Send random requests on one connection."""
    for _ in range(chance.randrange(1, 12)):
        async with clients:
            asked = chance.choice(_ASKS)(connection, int(10 ** chance.uniform(0, 5.7)))
            if chance.random() < 0.05:  # It gives up.
                with contextlib.suppress(TimeoutError):
                    verdicts[await asyncio.wait_for(asked, chance.uniform(0, 0.05))] += 1
            else:
                verdicts[await asked] += 1
        if not connection.usable or time.monotonic() > until:
            return


async def _accounts(stack: Surroundings, clients: _Clients, within: float = 15.0) -> dict[str, tuple[int, int]]:
    """With the clients at rest, the work under way on each hop and the expected one; waits until they agree."""
    found: dict[str, tuple[int, int]] = {}
    until = time.monotonic() + within
    while time.monotonic() < until:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", stack.gateway), "")
        page = (await connection.read("/metrics")).decode("utf-8")
        connection.abort()

        def count(pattern: str, page: str = page) -> int:
            return sum(int(float(value)) for value in re.findall(rf"(?m)^{pattern} (\S+)$", page))

        pooled = count(r'nitroproxy_pool_connections{[^}]*pool="destinations"[^}]*}')
        found = {
            hop: (count(rf'nitroproxy_requests_in_flight{{[^}}]*hop="nitroproxy-{hop}"[^}}]*}}'), expected)
            for hop, expected in (
                ("host", 1),  # This query,
                ("enclave", 1 + clients.tunnels),  # which the gateway passes on.
                ("relay", pooled + clients.tunnels),
            )
        }
        if all(has == should for has, should in found.values()):
            break
        await asyncio.sleep(0.2)
    return found


async def _audit(stack: Surroundings, clients: _Clients) -> None:
    """Compare the accounts of clients and hops.

    :raises Failed: when they do not agree.
    """
    await clients.hold()
    accounts = await _accounts(stack, clients)
    clients.let_go()
    insist(all(has == should for has, should in accounts.values()), f"the hops' accounts to agree, not {accounts}")


class _Memory:
    """Resident memory of a daemon over time."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._samples: list[tuple[float, int]] = []

    def note(self, resident: int) -> None:
        """It is *resident* bytes now."""
        self._samples.append((time.monotonic() - self._began, resident))

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
    async with Stack(*(f"limits.{name}={value}" for name, value in TIMES.items())) as stack:
        await soak_in(stack, seconds, seed)


async def soak_in(
    stack: Surroundings, seconds: float, seed: int | None = None, say: Callable[[str], None] = say
) -> None:
    """The soak, where the daemons run already.

    :param say: gets each line of the figures.
    :raises Failed: something was wrong, or is left.
    """
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    say(f"seed {seed}")
    chance = random.Random(seed)
    verdicts: Counter[Verdict] = Counter()
    descriptors = await warm(stack)
    for way in stack.ways:
        way.choose = lambda: _choose(chance)
    memories = {role: _Memory() for role in descriptors}
    until = time.monotonic() + seconds
    clients = _Clients()
    working = asyncio.gather(
        *(_work(stack, random.Random(f"{seed}/{i}"), until, verdicts, clients) for i in range(_WORKERS))
    )
    interval = min(_AUDIT_INTERVAL, seconds / 2)
    audit_at, audits = time.monotonic() + interval, 0
    while not working.done():
        await asyncio.wait([working], timeout=min(1.0, seconds / 40))
        for role, resident in (await stack.residents()).items():
            memories[role].note(resident)
        if time.monotonic() >= audit_at and not working.done():
            await _audit(stack, clients)
            audit_at, audits = time.monotonic() + interval, audits + 1
    await working
    insist(audits, "accounts to be compared at least once")
    for way in stack.ways:
        way.choose = lambda: (HARMLESS, HARMLESS)
    left = await settled(stack, descriptors)
    served = await client.get(await stack.path_form(), 1000)
    say(line(requests=verdicts.total(), **{verdict.value: verdicts[verdict] for verdict in Verdict}))
    say(
        line(
            connections_harmed=sum(way.harmed for way in stack.ways),
            descriptors_left=left,
            memory_KiB_a_minute={role: round(memory.slope) for role, memory in memories.items()},
            growth_MiB=[round(memory.growth, 2) for memory in memories.values()],
            tracebacks=stack.tracebacks(),
            audits=audits,
        )
    )
    insist(verdicts[Verdict.WRONG] == 0, "no wrong byte")
    insist(verdicts[Verdict.MIXED] == 0, "no mixed answers")
    insist(verdicts[Verdict.RIGHT] > verdicts.total() / 2, "most requests to be served")
    insist(max(left.values()) <= 0, "no descriptor left")
    insist(all(memory.growth <= 4 for memory in memories.values()), "memory flat")
    insist(served is Verdict.RIGHT, "to be served after it all")
    insist(stack.tracebacks() == 0, "no traceback in the logs")
