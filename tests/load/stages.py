"""The trials. Each starts a stack of its own, prints what it measured and raises `Failed` when that is not good."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from tests.load import client
from tests.load.client import BrokenOff, Connection, Verdict
from tests.load.faults import HARMLESS, Fault
from tests.load.stack import Stack, Surroundings

_MIB: Final = 1 << 20


class Failed(Exception):
    """A trial's outcome is not good."""


def insist(condition: object, what: str) -> None:
    """Go on if *condition* holds.

    :raises Failed: saying *what* should have been.
    """
    if not condition:
        raise Failed(what)


def line(**figures: object) -> str:
    """What was measured, in a line."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())


def say(text: str) -> None:
    """Print *text* as part of a trial's output."""
    print(f"  {text}", flush=True)


def report(**figures: object) -> None:
    """Print what was measured."""
    say(line(**figures))


async def all_right(stack: Stack, requests: int) -> None:
    """Other clients are still served."""
    connection = await stack.path_form()
    for _ in range(requests):
        insist(await client.get(connection, 1000) is Verdict.RIGHT, "another client's requests to be served")
    connection.abort()


async def settled(stack: Surroundings, descriptors: dict[str, int], within: float = 20.0) -> dict[str, int]:
    """Wait until no daemon has more descriptors than before; how many each has more."""
    more = {"host": 0, "enclave": 0}
    until = time.monotonic() + within
    while time.monotonic() < until:
        more = {role: count - descriptors[role] for role, count in (await stack.descriptors()).items()}
        if max(more.values()) <= 0:
            break
        await asyncio.sleep(0.2)
    return more


async def warm(stack: Surroundings) -> dict[str, int]:
    """Use every way once, wait for quiet, and count the descriptors that are always there."""
    for connect in (stack.path_form, stack.enclave_path_form, stack.tunnel):
        connection = await connect()
        insist(await client.get(connection, 100) is Verdict.RIGHT, "the stack to work")
        connection.abort()
    quiet = 0
    counted: dict[str, int] = {}
    while quiet < 10:
        seen = await stack.descriptors()
        quiet = quiet + 1 if seen == counted else 0
        counted = seen
        await asyncio.sleep(0.3)
    return counted


async def idle(connections: int) -> None:
    """F1: idle clients cost at most 5 KiB each in the host daemon, and others are served."""
    async with Stack(f"limits.connections={connections + 100}", "limits.idle_timeout=600") as stack:
        await all_right(stack, 20)
        before = stack.host.resident
        waiting = []
        for _ in range(connections):
            waiting.append(await asyncio.open_connection("127.0.0.1", stack.gateway))
        await all_right(stack, 50)
        growth = stack.host.resident - before
        report(idle_connections=connections, growth_MiB=round(growth / _MIB, 1), bytes_each=growth // connections)
        insist(growth <= max(50 * _MIB * connections / 10_000, 4 * _MIB), "at most 50 MiB for 10,000")
        for _, writer in waiting:
            writer.transport.abort()


async def drippers(connections: int) -> None:
    """F5: clients that send heads and bodies drop by drop are ended, and delay no other client."""
    limits = f"limits.connections={connections + 100}", "limits.header_timeout=6", "limits.idle_timeout=10"
    async with Stack(*limits) as stack:
        ended = Counter[str]()

        async def drip(start: bytes, what: str) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", stack.gateway)
            writer.write(start)
            answer = asyncio.create_task(reader.read())
            with contextlib.suppress(OSError):
                while not answer.done():
                    writer.write(b"x")
                    await asyncio.sleep(1)
            with contextlib.suppress(OSError):
                ended[f"{what} {answer.result()[9:12].decode() or 'closed'}"] += 1
            writer.transport.abort()

        body = f"POST /{stack.url}/digest HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n".encode()
        dripping = [
            asyncio.create_task(drip(b"GET / HTTP/1.1\r\nX: ", "heads") if i % 2 else drip(body, "bodies"))
            for i in range(connections)
        ]
        await asyncio.sleep(1)
        began = time.monotonic()
        await all_right(stack, 100)
        report(drippers=connections, ms_each_for_100_other_requests=round((time.monotonic() - began) * 10, 1))
        await asyncio.wait_for(asyncio.gather(*dripping), 60)
        report(**{kind.replace(" ", "_"): count for kind, count in sorted(ended.items())})
        insist(set(ended) == {"heads 408", "bodies 408"}, "every dripper to be answered 408")


async def bulk(size: int, parallel: int) -> None:
    """F3: large bodies both ways at once, right to the last byte, in bounded memory and without temporary files."""
    async with Stack() as stack:
        await all_right(stack, 20)
        before = {daemon.role: daemon.resident for daemon in (stack.host, stack.enclave)}
        peak = dict(before)

        async def watch() -> None:
            while True:
                for daemon in (stack.host, stack.enclave):
                    peak[daemon.role] = max(peak[daemon.role], daemon.resident)
                    for descriptor in os.listdir(f"/proc/{daemon.pid}/fd"):
                        with contextlib.suppress(OSError):
                            name = os.readlink(f"/proc/{daemon.pid}/fd/{descriptor}")
                            insist("/tmp/" not in name or name.endswith(".log"), f"no temporary file; found {name}")
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        began = time.monotonic()
        ways: list[Callable[[Connection], Awaitable[Verdict]]] = [
            lambda connection: client.get(connection, size),
            lambda connection: client.upload(connection, size),
        ]
        connections = [await stack.path_form() for _ in range(parallel)]
        verdicts = await asyncio.gather(*(ways[i % 2](connection) for i, connection in enumerate(connections)))
        insist(not watching.done(), "no temporary file")
        watching.cancel()
        growth = {role: round((peak[role] - before[role]) / _MIB, 1) for role in before}
        report(
            bodies=f"{parallel} of {size / _MIB:g} MiB", seconds=round(time.monotonic() - began, 1), growth_MiB=growth
        )
        insist(set(verdicts) == {Verdict.RIGHT}, f"every body right; saw {dict(client.names(verdicts))}")
        insist(max(growth.values()) <= 32, "at most 32 MiB of growth")


async def churn(connections: int) -> None:
    """F10: many connections come and go, and leave nothing behind."""
    async with Stack("limits.idle_timeout=4") as stack:
        descriptors = await warm(stack)
        samples: list[int] = []

        async def one(i: int) -> None:
            connection = await (stack.path_form if i % 4 else stack.tunnel)()
            insist(await client.get(connection, 100) is Verdict.RIGHT, "each request served")
            connection.abort()

        async def worker(first: int) -> None:
            for i in range(first, connections, 8):
                await one(i)
                if i % max(connections // 20, 1) == 0:
                    samples.append(stack.host.resident + stack.enclave.resident)

        await asyncio.gather(*(worker(first) for first in range(8)))
        more = await settled(stack, descriptors)
        half = samples[len(samples) // 2 :]
        growth = (half[-1] - half[0]) / _MIB
        report(connections=connections, descriptors_left=more, growth_in_second_half_MiB=round(growth, 2))
        insist(max(more.values()) <= 0, "no descriptor left")
        insist(growth <= 4, "memory flat")


async def cuts(trials: int) -> None:
    """F7, F8: a hop dies while a body moves; the client always sees that, and within a second."""
    async with Stack() as stack:
        hops = (stack.to_relay, stack.to_enclave, stack.to_upstream)
        verdicts: list[Verdict] = []
        slowest = 0.0

        async def one(trial: int) -> None:
            nonlocal slowest
            framing = ("length", "chunked", "close")[trial % 3]
            hop = hops[trial // 3 % 3]
            connect = stack.path_form if hop is stack.to_enclave or trial % 2 else stack.enclave_path_form
            connection = await connect()
            # Four seconds of body at least, of which the client has the first piece before anything is cut.
            asked = asyncio.create_task(client.get(connection, 400 * 65536, f"?framing={framing}&pace=0.01"))
            moving = asyncio.create_task(connection.moving.wait())
            await asyncio.wait((asked, moving), return_when=asyncio.FIRST_COMPLETED)
            moving.cancel()
            await asyncio.sleep((trial * 37 % 100) / 500)
            hop.abort_all()
            began = time.monotonic()
            verdicts.append(await asked)
            slowest = max(slowest, time.monotonic() - began)
            connection.abort()

        for trial in range(trials):
            await one(trial)
        counted = dict(client.names(verdicts))
        report(**counted, slowest_seconds=round(slowest, 2))
        insist(counted["broken"] == trials, "every cut to be seen as a response that broke off")
        insist(slowest <= 1, "to be seen within a second")
        insist(stack.tracebacks() == 0, "no traceback in the logs")


async def descriptors(limit: int) -> None:
    """F9: out of descriptors the host daemon neither spins nor stays deaf."""
    async with Stack(descriptors=limit) as stack:
        await all_right(stack, 5)
        crowd = [await asyncio.open_connection("127.0.0.1", stack.gateway) for _ in range(limit * 2)]
        cpu, began = stack.host.cpu, time.monotonic()
        await asyncio.sleep(2)
        share = (stack.host.cpu - cpu) / (time.monotonic() - began)
        for _, writer in crowd:
            writer.transport.abort()
        began = time.monotonic()
        while True:
            try:
                await all_right(stack, 1)
                break
            except (Failed, OSError):
                insist(time.monotonic() - began < 5, "to be served again")
                await asyncio.sleep(0.02)
        report(
            clients=limit * 2,
            limit=limit,
            cpu_share=round(share, 2),
            served_again_after=round(time.monotonic() - began, 2),
        )
        insist(share < 0.5, "no busy loop")
        insist(time.monotonic() - began <= 1, "to be served again within a second")


async def recovery() -> None:
    """F6: the enclave dies and comes back, then the host; requests fail at once and pass again without
    further action."""
    async with Stack() as stack:
        for daemon in (stack.enclave, stack.host):
            daemon.send(signal.SIGKILL)
            await daemon.ended(5)
            began = time.monotonic()
            connect = stack.path_form if daemon is stack.enclave else stack.enclave_path_form
            connection = await connect()
            verdict = await client.get(connection, 100)
            told = time.monotonic() - began
            connection.abort()
            insist(verdict is Verdict.TOLD, f"to be told that the {daemon.role} is gone; saw {verdict.value}")
            await daemon.start()
            back = time.monotonic()
            while True:
                with contextlib.suppress(OSError):
                    connection = await connect()
                    verdict = await client.get(connection, 100)
                    connection.abort()
                    if verdict is Verdict.RIGHT:
                        break
                insist(time.monotonic() - back < 20, "to be served again")
                await asyncio.sleep(0.05)
            report(killed=daemon.role, told_after=round(told, 2), served_after_start=round(time.monotonic() - back, 2))
            insist(told <= 1, "to be told within a second")


async def stalled() -> None:
    """A hop that goes silent is noticed at the idle timeout, not waited for."""
    async with Stack("limits.idle_timeout=2") as stack:
        stack.to_relay.choose = lambda: (HARMLESS, Fault(stall_after=100_000))
        connection = await stack.path_form()
        began = time.monotonic()
        verdict = await client.get(connection, 10 * _MIB)
        took = time.monotonic() - began
        report(verdict=verdict.value, seconds=round(took, 1))
        insist(verdict is Verdict.BROKEN and 2 <= took < 6, "broken off at the idle timeout")
        connection.abort()


async def limit(connections: int) -> None:
    """F2: beyond the limit a connection is told so, and those within go on."""
    async with Stack(f"limits.connections={connections}") as stack:
        await warm(stack)  # So that no connection that asked for health is still counted.
        held = [await stack.path_form() for _ in range(connections)]
        for connection in held:
            insist(await client.get(connection, 100) is Verdict.RIGHT, "those within the limit served")
        beyond = await stack.path_form()
        try:
            answer = await beyond.ask("GET", "/bytes/1/1")
        except BrokenOff as error:
            raise Failed(f"an answer beyond the limit; {error}") from error
        report(limit=connections, beyond=answer.status, retry_after=answer.headers.get(b"retry-after", b"").decode())
        insist(answer.status == 503 and b"retry-after" in answer.headers, "503 with Retry-After")
        insist(await client.get(held[0], 100) is Verdict.RIGHT, "those within the limit served")
        for connection in held:
            connection.abort()


async def reload() -> None:
    """SIGHUP: a good file takes effect for the next request, a broken one changes nothing; connections stay."""
    async with Stack() as stack:
        connection = await stack.path_form()
        for content, expected in (
            ("{}", Verdict.RIGHT),
            (f'{{"egress": {{"deny": ["localhost:{stack.port}"]}}}}', Verdict.TOLD),
            ('{"egress": {"deny": ["nonsense"]}}', Verdict.TOLD),
            ("{", Verdict.TOLD),
            ('{"limits": {"idle_timeout": 5}}', Verdict.RIGHT),
        ):
            stack.enclave.config.write_text(content)
            lines = stack.enclave.log.read_text().count("reloaded")
            stack.enclave.send(signal.SIGHUP)
            async with asyncio.timeout(10):
                while stack.enclave.log.read_text().count("reloaded") == lines:
                    await asyncio.sleep(0.02)
            verdict = await client.get(connection, 100)
            report(file=content, verdict=verdict.value)
            insist(verdict is expected, f"{expected.value} with {content}")
            insist(connection.usable, "the connection to last")
        connection.abort()


async def blocked_log(requests: int) -> None:
    """F12: the host daemon's log is not read; requests pass as before, and lost lines are counted."""
    reader, writer = os.pipe()
    stack = Stack()
    stack.host.output = writer
    try:
        async with stack:
            began = time.monotonic()
            await asyncio.gather(*(all_right(stack, requests // 8) for _ in range(8)))
            seconds = time.monotonic() - began
            connection = Connection(*await asyncio.open_connection("127.0.0.1", stack.gateway), "")
            page = await connection.read("/metrics")
            connection.abort()
            dropped = next(
                float(line.split()[1])
                for line in page.decode().splitlines()
                if line.startswith('nitroproxy_log_lines_dropped_total{role="host"}')
            )
            report(requests=requests, a_second=round(requests / seconds), lines_dropped=int(dropped))
            # Two lines a request, the enclave's too; a ring of 20,000 and a pipe of 64 KiB.
            insist(dropped > 0 or requests < 12_000, "lost lines to be counted")
    finally:
        os.close(reader)
        os.close(writer)


async def logs() -> None:
    """The enclave's log arrives at the host, also what was logged while the host daemon was away."""
    async with Stack() as stack:

        async def asked(identity: str, connection: Connection) -> None:
            await connection.ask("GET", "/bytes/1/1", identity=identity)
            connection.abort()

        async def arrived(identity: str) -> float:
            began = time.monotonic()
            async with asyncio.timeout(20):
                while not any(
                    "[enclave 16]" in line and identity in line for line in stack.host.log.read_text().splitlines()
                ):
                    await asyncio.sleep(0.05)
            return round(time.monotonic() - began, 2)

        await asked("before-1", await stack.path_form())
        first = await arrived("before-1")
        stack.host.send(signal.SIGKILL)
        await stack.host.ended(5)
        await asked("meanwhile-2", await stack.enclave_path_form())
        await stack.host.start()
        second = await arrived("meanwhile-2")
        lines = [
            line for line in stack.host.log.read_text().splitlines() if "[enclave 16]" in line and "meanwhile-2" in line
        ]
        report(arrived_after=first, arrived_after_the_restart=second, times=len(lines))
        insist(len(lines) == 1, "each line once")
