"""The trials of a stop: what is under way when the daemon is told to stop, and what arrives at that moment."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

from tests.load import client
from tests.load.client import Connection, Verdict
from tests.load.stack import Stack
from tests.load.stages import insist, report


async def drain(requests: int, *options: str) -> None:
    """F13: SIGTERM under load loses no request under way; exit status 0 when drained, 1 when the time ran out."""
    for role in ("host", "enclave"):
        await _drain_under_way(role, requests, *options)
    await _drain_under_load(*options)
    async with Stack("limits.drain_timeout=1", *options) as stack:
        connection = await stack.path_form()
        asking = asyncio.create_task(client.get(connection, 100 * 65536, "?pace=0.1"))
        await asyncio.sleep(0.6)
        stack.host.send(signal.SIGTERM)
        status = await stack.host.ended(15)
        verdict = await asking
        report(after_the_timeout=verdict.value, exit_status=status)
        insist((verdict, status) == (Verdict.BROKEN, 1), "what is left at the timeout broken off, and exit status 1")


async def _drain_under_way(role: str, requests: int, *options: str) -> None:
    async with Stack("limits.drain_timeout=20", *options) as stack:
        daemon = stack.host if role == "host" else stack.enclave
        connections = [await stack.path_form() for _ in range(requests)]
        asked = [
            asyncio.create_task(client.get(connection, 10 * 65536, "?framing=chunked&pace=0.1"))
            for connection in connections
        ]
        await asyncio.sleep(0.6)
        daemon.send(signal.SIGTERM)
        verdicts = await asyncio.gather(*asked)
        status = await daemon.ended(25)
        report(role=role, under_way=requests, right=verdicts.count(Verdict.RIGHT), exit_status=status)
        insist(
            set(verdicts) == {Verdict.RIGHT}, f"every request under way answered; saw {dict(client.names(verdicts))}"
        )
        insist(status == 0, "exit status 0")


async def _drain_under_load(*options: str) -> None:
    """200 requests a second on connections of their own: each one that was let in is answered."""
    async with Stack(*options) as stack:
        verdicts: list[Verdict] = []
        refused = 0
        reused = await stack.path_form()
        insist(await client.get(reused, 100) is Verdict.RIGHT, "the stack to work")

        async def one() -> None:
            nonlocal refused
            try:
                connection = await stack.path_form()
            except ConnectionError:
                refused += 1
                return
            verdicts.append(await client.get(connection, 1000))
            connection.abort()

        asking: list[asyncio.Task[None]] = []
        for number in range(300):
            if number == 200:
                stack.host.send(signal.SIGTERM)
                asking.append(asyncio.create_task(_ask_once_more(reused, verdicts)))
            asking.append(asyncio.create_task(one()))
            await asyncio.sleep(0.005)
        await asyncio.gather(*asking)
        status = await stack.host.ended(25)
        report(answered=verdicts.count(Verdict.RIGHT), refused_before_they_were_let_in=refused, exit_status=status)
        insist(set(verdicts) == {Verdict.RIGHT}, f"every request answered; saw {dict(client.names(verdicts))}")
        insist(refused > 0 and status == 0, "the daemon to stop")


async def _ask_once_more(connection: Connection, verdicts: list[Verdict]) -> None:
    """On a kept-alive connection, at the moment at which the daemon receives the signal to stop."""
    verdicts.append(await client.get(connection, 1000))


async def connects(rounds: int, *options: str) -> None:
    """Clients that connect while the daemon stops are served or refused; none is reset."""
    outcomes: Counter[str] = Counter()
    async with Stack(*options) as stack:
        for _ in range(rounds):
            over = asyncio.Event()
            clients = [asyncio.create_task(_connect(stack.gateway, outcomes, over)) for _ in range(32)]
            served = outcomes["served"]
            async with asyncio.timeout(30):
                while outcomes["served"] < served + 200:
                    await asyncio.sleep(0.01)
            stack.host.send(signal.SIGTERM)
            status = await stack.host.ended(30)
            over.set()
            await asyncio.gather(*clients)
            insist(status == 0, "exit status 0")
            await stack.host.start()
            await stack.until_healthy(60)
    report(rounds=rounds, **outcomes)
    insist(outcomes["reset"] == 0, "nobody to be reset")
    insist(outcomes["refused"] > 0, "the daemon to have stopped")


async def _connect(port: int, outcomes: Counter[str], over: asyncio.Event) -> None:
    """Connect, ask for a page of the gateway's and leave, again and again."""
    while not over.is_set():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            outcomes["refused"] += 1
            await asyncio.sleep(0.02)
            continue
        try:
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            outcomes["served" if answer.startswith(b"HTTP/1.1 200 ") else "turned away" if answer else "reset"] += 1
        except ConnectionError:
            outcomes["reset"] += 1
        writer.transport.abort()
