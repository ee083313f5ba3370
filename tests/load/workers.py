"""Trials of the daemons on two processes each. Each starts a stack of its own, as in `stages`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from tests.load import client
from tests.load.client import BrokenOff, Connection, Verdict
from tests.load.stack import Daemon, Stack
from tests.load.stages import all_right, insist, report
from tests.ports import free_port

TWO = ("host_proxy.processes=2", "enclave.processes=2")
#: What a killed worker may break off: the connection of each of eight clients, and each of the enclave's through it.
_AT_ONCE: Final = 16


async def page(stack: Stack, path: str) -> str:
    """A page of the gateway's, from the process that accepts the connection."""
    connection = Connection(*await asyncio.open_connection("127.0.0.1", stack.gateway), "")
    try:
        return (await connection.read(path)).decode()
    finally:
        connection.abort()


async def scrape(stack: Stack, name: str, role: str, **labels: str) -> dict[str, float]:
    """The samples of a role's metric *name* with those labels, by worker."""
    return {
        sample.labels["worker"]: sample.value
        for family in text_string_to_metric_families(await page(stack, "/metrics"))
        for sample in family.samples
        if sample.name == f"nitroproxy_{name}" and sample.labels.items() >= {"role": role, **labels}.items()
    }


async def served(stack: Stack, role: str) -> float:
    """How many requests the role's workers have served, by their own counts."""
    counted = await scrape(stack, "requests_total", role, hop=f"nitroproxy-{role}", code="2xx", method="GET")
    return sum(counted.values())


def by_worker(daemon: Daemon) -> Counter[str]:
    """How many requests each worker of a daemon has logged."""
    lines = daemon.log.read_text().splitlines()
    return Counter(
        line.partition("[worker ")[2][:1]
        for line in lines
        if f"nitroproxy-{daemon.role} GET localhost" in line and "[enclave" not in line
    )


#: The supervisor's line about a worker that has come up.
_STARTED = r"(?m)^[^\[\n]*worker [12] started$"


def started(daemon: Daemon) -> int:
    """How often the daemon's supervisor has seen a worker come up."""
    return len(re.findall(_STARTED, daemon.log.read_text()))


async def workers(requests: int) -> None:
    """On host and enclave: all workers serve, and any of them answers for all; one that hangs is shown and replaced;
    one that is killed comes back."""
    async with Stack(*TWO) as stack:
        for daemon in (stack.host, stack.enclave):
            insist(len(daemon.children) == 2, "two workers")
        before = {role: await served(stack, role) for role in ("enclave", "host")}
        await asyncio.gather(*(all_right(stack, requests // 40) for _ in range(40)))
        for daemon in (stack.host, stack.enclave):
            async with asyncio.timeout(10):
                while by_worker(daemon).total() < requests:
                    await asyncio.sleep(0.02)
            report(role=daemon.role, requests=requests, by_worker=dict(by_worker(daemon)))
            insist(min(by_worker(daemon).get(number, 0) for number in "12") > 0, "both to serve")
        counts = [await served(stack, "host") - before["host"] - asked for asked in range(1, 9)]
        insist(set(counts) == {requests}, f"each scrape to show all {requests}; saw {counts}")
        insist(await served(stack, "enclave") - before["enclave"] >= requests, "the enclave's workers in it")
        async with asyncio.timeout(10):
            while not all(f"[enclave 16] [worker {number}]" in stack.host.log.read_text() for number in "12"):
                await asyncio.sleep(0.05)
        await _hung(stack)
        for daemon in (stack.host, stack.enclave):
            await _killed(stack, daemon)
        insist(stack.tracebacks() == 0, "no traceback in the logs")


async def ends() -> None:
    """Workers do not outlive their supervisor, and a daemon that cannot listen leaves none."""
    await _orphans()
    await _cannot_bind()


async def _hung(stack: Stack) -> None:
    stuck = stack.host.children[0]
    there = started(stack.host)
    os.kill(stuck, signal.SIGSTOP)
    async with asyncio.timeout(10):
        up = await scrape(stack, "worker_up", "host")
        health = json.loads(await page(stack, "/health"))["checks"]["workers"][0]
        # Not requests: what goes out through a tunnel of the one that hangs hangs with it.
        alive = [await page(stack, "/health/live") for _ in range(20)]
    insist(all(alive), "the other to serve")
    report(one_hangs=up, health=health["status"])
    insist(sorted(up.values()) == [0, 1, 1], "the worker that hangs to be shown by the other")
    insist(health["status"] == "warn" and "do not answer" in health["output"], "health to warn of it")
    async with asyncio.timeout(30):
        while started(stack.host) == there:
            await asyncio.sleep(0.1)
    insist(stuck not in stack.host.children and len(stack.host.children) == 2, "it to be replaced")
    async with asyncio.timeout(10):
        while json.loads(await page(stack, "/health"))["checks"]["workers"][0]["status"] != "pass":
            await asyncio.sleep(0.05)


async def killed(seconds: float) -> None:
    """A worker killed each second, on host and enclave in turn, under load: nothing but its own requests fails (K6)."""
    async with Stack(*TWO) as stack:
        verdicts: Counter[Verdict] = Counter()
        over = asyncio.Event()
        asking = [asyncio.create_task(_ask(stack, verdicts, over)) for _ in range(8)]
        kills: Counter[str] = Counter()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(1)
            daemon = (stack.host, stack.enclave)[kills.total() % 2]
            if started(daemon) == 2 + kills[daemon.role]:  # Otherwise the last one is not back yet.
                os.kill(daemon.children[0], signal.SIGKILL)
                kills[daemon.role] += 1
        over.set()
        await asyncio.gather(*asking)
        report(kills=dict(kills), verdicts=dict(client.names(verdicts.elements())))
        insist(len(kills) == 2 and verdicts[Verdict.RIGHT] > 0, "requests and kills")
        insist(verdicts[Verdict.WRONG] + verdicts[Verdict.MIXED] == 0, "no wrong answer")
        broken = verdicts.total() - verdicts[Verdict.RIGHT]
        insist(broken <= _AT_ONCE * kills.total(), f"only what the workers had to break off; saw {broken} in all")
        for daemon in (stack.host, stack.enclave):
            async with asyncio.timeout(30):
                while started(daemon) < 2 + kills[daemon.role]:
                    await asyncio.sleep(0.05)
            restarts = sum((await scrape(stack, "worker_restarts_total", daemon.role)).values())
            insist(restarts == kills[daemon.role], f"the metric to count {kills[daemon.role]}; saw {restarts}")
        await all_right(stack, 50)
        insist(stack.tracebacks() == 0, "no traceback in the logs")


async def _ask(stack: Stack, verdicts: Counter[Verdict], over: asyncio.Event) -> None:
    """Ask again and again, on a new connection after one that failed."""
    while not over.is_set():
        connection = await stack.path_form()
        verdict = Verdict.RIGHT
        while verdict is Verdict.RIGHT and connection.usable and not over.is_set():
            verdict = await client.get(connection, 1000)
            verdicts[verdict] += 1
        connection.abort()


async def _killed(stack: Stack, daemon: Daemon) -> None:
    """kill -9 of one under load: the other goes on, and it is back."""
    verdicts: Counter[Verdict] = Counter()
    over = asyncio.Event()
    restarts = sum((await scrape(stack, "worker_restarts_total", daemon.role)).values())
    asking = [asyncio.create_task(_ask(stack, verdicts, over)) for _ in range(8)]
    while verdicts[Verdict.RIGHT] < 100:
        await asyncio.sleep(0.01)
    there, victim = started(daemon), daemon.children[0]
    os.kill(victim, signal.SIGKILL)
    killed = verdicts[Verdict.RIGHT]
    async with asyncio.timeout(20):
        while started(daemon) == there:
            await asyncio.sleep(0.01)
    served_meanwhile = verdicts[Verdict.RIGHT] - killed
    over.set()
    await asyncio.gather(*asking)
    restarts = sum((await scrape(stack, "worker_restarts_total", daemon.role)).values()) - restarts
    lost = verdicts.total() - verdicts[Verdict.RIGHT]
    report(role=daemon.role, killed=victim, answered_meanwhile=served_meanwhile, broken_off=lost, restarts=restarts)
    insist(served_meanwhile > 0, "the other worker to go on")
    insist(verdicts[Verdict.WRONG] + verdicts[Verdict.MIXED] == 0, "no wrong answer")
    insist(lost <= _AT_ONCE, f"only what the worker had to break off; saw {dict(client.names(verdicts.elements()))}")
    insist(restarts == 1 and len(daemon.children) == 2, "it to be back")
    insist(victim not in daemon.children, "a new process")
    await all_right(stack, 50)


async def _orphans() -> None:
    """kill -9 of the supervisors: no worker goes on serving."""
    async with Stack(*TWO) as stack:
        children = [*stack.host.children, *stack.enclave.children]
        for daemon in (stack.host, stack.enclave):
            daemon.send(signal.SIGKILL)
            await daemon.ended(5)
        async with asyncio.timeout(10):
            while any(Path(f"/proc/{child}/cmdline").exists() for child in children):
                await asyncio.sleep(0.02)
        report(supervisor_killed_workers_left=0)
        try:
            await page(stack, "/health")
        except (ConnectionError, BrokenOff):
            return
        insist(False, "no process to serve")


async def _cannot_bind() -> None:
    """A place that is taken: one line, status 1, no process left."""
    async with Stack(*TWO) as stack:
        options = ["transport.kind=unix", f"transport.directory={stack.directory}/x", *TWO]
        second = Daemon("host", [*options, f"host_proxy.port={stack.gateway}"], stack.directory / "second.log")
        await second.start()
        status = await second.ended(20)
        text = second.log.read_text()
        report(port_taken_exit_status=status)
        insist(status == 1 and text.count("cannot listen") == 1 and "Traceback" not in text, "one line and status 1")


async def starved() -> None:
    """A supervisor without descriptors cannot start a worker that died: it tries again, the other keeps serving, and it
    is up as soon as there are some; after ten attempts the daemon ends with status 1."""
    async with Stack(*TWO, "logging.port=0") as stack:  # The supervisor itself accepts nothing then.
        for daemon in (stack.enclave, stack.host):
            soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
            await _logged(daemon, _STARTED, 2)
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, hard))
            os.kill(daemon.children[0], signal.SIGKILL)
            await _logged(daemon, r"(?m)^[^\[\n]*worker \d has no process: Too many open files", 2)
            insist(len(daemon.children) == 1, "the other to be left")
            insist([await page(stack, "/health/live") for _ in range(20)], "it to serve")
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))
            await _logged(daemon, _STARTED, 3)
            insist(len(daemon.children) == 2, "the worker to be back")
        await all_right(stack, 20)
        insist(stack.tracebacks() == 0, "no traceback in the logs")
        resource.prlimit(stack.host.pid, resource.RLIMIT_NOFILE, (3, hard))
        os.kill(stack.host.children[0], signal.SIGKILL)
        began = time.monotonic()
        status = await stack.host.ended(60)
        report(given_up_after=round(time.monotonic() - began, 1), exit_status=status)
        insist(status == 1 and len(re.findall("has failed to start 10 times", stack.host.log.read_text())) == 1, "1")


async def _logged(daemon: Daemon, pattern: str, count: int) -> None:
    async with asyncio.timeout(20):
        while len(re.findall(pattern, daemon.log.read_text())) < count:
            await asyncio.sleep(0.02)


async def interrupted() -> None:
    """Ctrl-C at a terminal goes to the whole process group: while the workers start, the daemon ends as if it had gone
    to the daemon alone."""
    async with Stack() as stack:
        for role in ("host", "enclave"):
            options = ["transport.kind=unix", f"transport.directory={stack.directory}/x", *TWO]
            options += [f"host_proxy.port={free_port()}", f"enclave.proxy_port={free_port()}"]
            daemon = Daemon(role, options, stack.directory / f"interrupted-{role}.log")
            daemon.own_group = True
            await daemon.start()
            async with asyncio.timeout(20):
                while len(daemon.children) < 2:
                    await asyncio.sleep(0.002)
            os.killpg(daemon.pid, signal.SIGINT)
            status = await daemon.ended(60)
            text = daemon.log.read_text()
            report(role=role, exit_status=status)
            insist(status == 0, "status 0")
            insist("cannot start" not in text and "Traceback" not in text and "was killed" not in text, "no complaint")


async def reload() -> None:
    """SIGHUP: a good file takes effect in every worker, a broken one changes nothing; connections stay."""
    async with Stack(*TWO) as stack:
        await _reload(stack, stack.host, '{"limits": {"header_bytes": 1024}}', Verdict.RIGHT)
        await _reload(stack, stack.enclave, '{"egress": {"deny": ["localhost:*"]}}', Verdict.TOLD)
        for daemon in (stack.host, stack.enclave):
            insist(min(by_worker(daemon).get(number, 0) for number in "12") > 0, "both to have been asked")


async def _reload(stack: Stack, daemon: Daemon, stricter: str, for_old: Verdict) -> None:
    """Reload one daemon.

    :param stricter: a configuration under which new connections are refused.
    :param for_old: what connections from before then get.
    """
    lasting = [await stack.path_form() for _ in range(10)]
    for content, expected, successful in (
        ("{}", Verdict.RIGHT, 1),
        (stricter, Verdict.TOLD, 1),
        ('{"limits": {"header_bytes": "nonsense"}}', Verdict.TOLD, 0),
        ("{}", Verdict.RIGHT, 1),
    ):
        daemon.config.write_text(content)
        told = daemon.log.read_text().count("reloaded")
        daemon.send(signal.SIGHUP)
        async with asyncio.timeout(30):
            # One line of the supervisor, and when it is good one of each worker.
            while daemon.log.read_text().count("reloaded") < told + (3 if successful else 1):
                await asyncio.sleep(0.02)
        long = "?" + "x" * 2000
        connections = [await stack.path_form() for _ in range(20)]
        verdicts = {await client.get(connection, 100, long) for connection in connections}
        report(role=daemon.role, file=content, verdicts=[verdict.value for verdict in verdicts])
        insist(verdicts == {expected}, f"{expected.value} from every worker with {content}")
        for connection in connections:
            connection.abort()
        kept = {await client.get(connection, 100) for connection in lasting}
        insist(kept == {Verdict.RIGHT if expected is Verdict.RIGHT else for_old}, "connections to last")
        gauge = await scrape(stack, "config_last_reload_successful", daemon.role)
        insist(gauge["supervisor"] == successful, f"the metric to say so; saw {gauge}")
