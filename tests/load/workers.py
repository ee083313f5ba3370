"""Trials of the host daemon on two processes. Each starts a stack of its own, as in `stages`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.load import client
from tests.load.client import BrokenOff, Connection, Verdict
from tests.load.stack import Daemon, Stack
from tests.load.stages import all_right, insist, report

TWO = "host_proxy.processes=2"


async def page(stack: Stack, path: str) -> str:
    """A page of the gateway's, from whichever process takes the connection."""
    connection = Connection(*await asyncio.open_connection("127.0.0.1", stack.gateway), "")
    try:
        return (await connection.read(path)).decode()
    finally:
        connection.abort()


async def scrape(stack: Stack, name: str, **labels: str) -> dict[str, float]:
    """The samples of the host's metric *name* with those labels, by their worker or else by nothing."""
    return {
        sample.labels.get("worker", ""): sample.value
        for family in text_string_to_metric_families(await page(stack, "/metrics"))
        for sample in family.samples
        if sample.name == f"nitroproxy_{name}" and sample.labels.items() >= {"role": "host", **labels}.items()
    }


async def served(stack: Stack) -> float:
    """How many requests the gateway has passed on, by its own count."""
    return (await scrape(stack, "requests_total", hop="nitroproxy-host", code="2xx", method="GET")).get("", 0)


def by_worker(stack: Stack) -> Counter[str]:
    """How many requests each worker has logged."""
    lines = stack.host.log.read_text().splitlines()
    return Counter(line.partition("[worker ")[2][:1] for line in lines if "nitroproxy-host GET localhost" in line)


async def workers(requests: int) -> None:
    """Both serve, and whoever is asked tells of both; one that hangs is shown; one that is killed comes back."""
    async with Stack(TWO) as stack:
        insist(len(stack.host.children) == 2, "two workers")
        before = await served(stack)
        await asyncio.gather(*(all_right(stack, 1) for _ in range(requests)))
        counts = [await served(stack) - before - asked for asked in range(1, 9)]
        async with asyncio.timeout(10):
            while by_worker(stack).total() < requests:
                await asyncio.sleep(0.02)
        report(requests=requests, by_worker=dict(by_worker(stack)))
        insist(min(by_worker(stack).get(number, 0) for number in "12") > 0, "both to serve")
        insist(set(counts) == {requests}, f"each scrape to count all {requests}; saw {counts}")
        await _hung(stack)
        await _killed(stack)
    await _orphans()
    await _cannot_bind()


async def _hung(stack: Stack) -> None:
    stuck = stack.host.children[0]
    os.kill(stuck, signal.SIGSTOP)
    async with asyncio.timeout(10):
        up = await scrape(stack, "worker_up")
        health = json.loads(await page(stack, "/health"))["checks"]["workers"][0]
        # Not requests: what goes out through a tunnel of the one that hangs hangs with it.
        alive = [await page(stack, "/health/live") for _ in range(20)]
    os.kill(stuck, signal.SIGCONT)
    insist(all(alive), "the other to serve")
    report(one_hangs=up, health=health["status"])
    insist(sorted(up.values()) == [0, 1, 1], "the worker that hangs to be shown by the other")
    insist(health["status"] == "warn" and "do not answer" in health["output"], "health to warn of it")
    async with asyncio.timeout(10):
        while json.loads(await page(stack, "/health"))["checks"]["workers"][0]["status"] != "pass":
            await asyncio.sleep(0.05)


async def _killed(stack: Stack) -> None:
    """kill -9 of one under load: the other goes on, and it is back."""
    verdicts: Counter[Verdict] = Counter()
    over = False

    async def ask() -> None:
        while not over:
            connection = await stack.path_form()
            verdict = Verdict.RIGHT
            while verdict is Verdict.RIGHT and connection.usable and not over:
                verdict = await client.get(connection, 1000)
                verdicts[verdict] += 1
            connection.abort()

    asking = [asyncio.create_task(ask()) for _ in range(8)]
    while verdicts[Verdict.RIGHT] < 100:
        await asyncio.sleep(0.01)
    count, there = await served(stack), stack.host.log.read_text().count("is there")
    victim = stack.host.children[0]
    os.kill(victim, signal.SIGKILL)
    killed = verdicts[Verdict.RIGHT]
    async with asyncio.timeout(20):
        while stack.host.log.read_text().count("is there") == there:
            await asyncio.sleep(0.01)
    meanwhile = verdicts[Verdict.RIGHT] - killed
    insist(await served(stack) >= count, "the count not to go down")
    over = True
    await asyncio.gather(*asking)
    restarts = await scrape(stack, "worker_restarts_total")
    lost = verdicts.total() - verdicts[Verdict.RIGHT]
    report(killed_under_load=victim, answered_meanwhile=meanwhile, broken_off=lost, restarts=sum(restarts.values()))
    insist(meanwhile > 0, "the other worker to go on")
    insist(verdicts[Verdict.WRONG] + verdicts[Verdict.MIXED] == 0, "no wrong answer")
    # Each client's connection at the worker, and each connection of the enclave's through it.
    insist(lost <= 16, f"only what the worker had to break off; saw {dict(client.names(verdicts.elements()))}")
    insist(sum(restarts.values()) == 1 and len(stack.host.children) == 2, "it to be back")
    insist(victim not in stack.host.children, "a new process")
    await all_right(stack, 50)
    insist(stack.tracebacks() == 0, "no traceback in the logs")


async def _orphans() -> None:
    """kill -9 of the supervisor: nobody goes on serving."""
    async with Stack(TWO) as stack:
        children = stack.host.children
        stack.host.send(signal.SIGKILL)
        await stack.host.ended(5)
        async with asyncio.timeout(10):
            while any(Path(f"/proc/{child}/cmdline").exists() for child in children):
                await asyncio.sleep(0.02)
        report(supervisor_killed_workers_left=0)
        try:
            await page(stack, "/health")
        except (ConnectionError, BrokenOff):
            return
        insist(False, "nobody to serve")


async def _cannot_bind() -> None:
    """A place that is taken: one line, status 1, no process left."""
    async with Stack(TWO) as stack:
        options = ["transport.kind=unix", f"transport.directory={stack.directory}/x", TWO]
        second = Daemon("host", [*options, f"host_proxy.port={stack.gateway}"], stack.directory / "second.log")
        await second.start()
        status = await second.ended(20)
        text = second.log.read_text()
        report(port_taken_exit_status=status)
        insist(status == 1 and text.count("cannot listen") == 1 and "Traceback" not in text, "one line and status 1")


async def reload() -> None:
    """SIGHUP: a good file takes effect in every worker, a broken one changes nothing; connections stay."""
    async with Stack(TWO) as stack:
        lasting = [await stack.path_form() for _ in range(10)]
        for content, expected, successful in (
            ("{}", Verdict.RIGHT, 1),
            ('{"limits": {"header_bytes": 1024}}', Verdict.TOLD, 1),
            ('{"limits": {"header_bytes": "nonsense"}}', Verdict.TOLD, 0),
            ("{}", Verdict.RIGHT, 1),
        ):
            stack.host.config.write_text(content)
            told = stack.host.log.read_text().count("reloaded")
            stack.host.send(signal.SIGHUP)
            async with asyncio.timeout(10):
                # One line of the supervisor, and when it is good one of each worker.
                while stack.host.log.read_text().count("reloaded") < told + (3 if successful else 1):
                    await asyncio.sleep(0.02)
            long = "?" + "x" * 2000
            connections = [await stack.path_form() for _ in range(20)]
            verdicts = {await client.get(connection, 100, long) for connection in connections}
            report(file=content, verdicts=[verdict.value for verdict in verdicts])
            insist(verdicts == {expected}, f"{expected.value} from every worker with {content}")
            for connection in connections:
                connection.abort()
            kept = {await client.get(connection, 100) for connection in lasting}
            insist(kept == {Verdict.RIGHT}, "connections to last")
            gauge = await scrape(stack, "config_last_reload_successful")
            insist(gauge == {"": successful}, f"the metric to say so; saw {gauge}")
        insist(min(by_worker(stack).get(number, 0) for number in "12") > 0, "both to have been asked")
