"""What many names, many connections and killed daemons do: each trial gives what was wrong, or nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.transparent.stack import Stack

_ROUNDS: Final = 4
_CONNECTIONS: Final = 1000
_PYTHON: Final = "python3"
_CLIENT: Final = Path(__file__).with_name("client.py")


def _client(stack: Stack, what: str, *words: str, timeout: float = 180) -> str:
    """Run a trial's client inside; what it found wrong."""
    done = stack.run([_PYTHON, str(_CLIENT), what, *words], timeout=timeout)
    return "" if done.returncode == 0 else f"{done.stdout[-1500:]}{done.stderr[-1500:]}"


def not_logged(stack: Stack, expected: Sequence[tuple[str, str, str]]) -> str:
    """Which events are not in the log: each an event's name, the name or address that it is about, and its reason."""
    events: list[Mapping[str, Any]] = []
    for line in stack.log.splitlines():
        if line.startswith("{"):
            events.append(json.loads(line))
    missing = [
        f"no {event} for {about} with {reason}"
        for event, about, reason in expected
        if not any(
            one.get("event") == event and about in json.dumps(one) and reason in json.dumps(one) for one in events
        )
    ]
    return "\n".join(missing)


def unhealthy(stack: Stack) -> str:
    """What is wrong with the daemon's health and metrics."""
    health = stack.run(["curl", "-s", "http://127.0.0.1:8080/health"]).stdout
    checks = json.loads(health)["checks"]
    wrong = [f"{name}: {check}" for name, [check] in checks.items() if check["status"] != "pass"]
    if "transparent" not in checks:
        wrong.append("no check transparent")
    metrics = stack.run(["curl", "-s", "http://127.0.0.1:8080/metrics"]).stdout
    for words in (
        'nitroproxy_policy_denials_total{hop="nitroproxy-enclave",role="enclave",rule="allow"}',
        'nitroproxy_dns_questions_total{kind="a",outcome="denied",role="enclave"}',
        'nitroproxy_dns_names{role="enclave"}',
    ):
        if words not in metrics:
            wrong.append(f"no {words} in the metrics")
    return "\n".join(wrong)


def many_names() -> str:
    """5,000 names, then 1,000 connections at once, each of which must reach its own name."""
    with Stack() as stack:
        return _client(stack, "names", "5000") or _client(stack, "at_once", "1000")


def killed(processes: int, which: int) -> str:
    """Names are looked up, a process of the daemon is killed, and connected to then: every connection reaches its name.

    :param which: 0 is the first process, 1 the first worker.
    """
    with Stack(processes) as stack:
        wrong = _client(stack, "names", "300")
        before = stack.daemons()
        stack.kill(before[which])
        wrong = wrong or _client(stack, "at_once", "300")
        after = stack.daemons()
        if not wrong and before[which] in after:
            wrong = "the process was not killed"
        return wrong or _client(stack, "names", "300")


def too_many_names() -> str:
    """65,536 names have an address, the next one is SERVFAIL, and the first ones still have theirs."""
    with Stack() as stack:
        return _client(stack, "too_many", timeout=400)


def own_listener(family: str, when: str) -> str:
    """An application listens on a port on all addresses itself: it is reached, and what it connects to is as ever."""
    early = [_PYTHON, str(_CLIENT), "hold", family] if when == "before" else []
    with Stack(early=early) as stack:
        return _client(stack, "own_listener", family, when)


def short_connections() -> str:
    """40,000 short connections to one name in a row."""
    with Stack(more={"logging": {"access": False}}) as stack:
        return _client(stack, "short", "40000", timeout=900)


def questions() -> str:
    """1,000 questions a second for ten seconds, all answered."""
    with Stack() as stack:
        return _client(stack, "questions", "1000", "10")


def costs() -> str:
    """CPU of the enclave daemon: for a connection that is redirected and for a CONNECT, in turns; for an answer."""
    with Stack() as stack:
        [daemon] = stack.daemons()
        spent: dict[str, float] = {"by_connect": 0.0, "short": 0.0}
        for _ in range(_ROUNDS):
            for what in spent:
                before = _cpu(daemon)
                if wrong := _client(stack, what, str(_CONNECTIONS)):
                    return wrong
                spent[what] += _cpu(daemon) - before
        before = _cpu(daemon)
        if wrong := _client(stack, "questions", "2000", "10"):
            return wrong
        answer = (_cpu(daemon) - before) / 20000
    each = {what: seconds / _ROUNDS / _CONNECTIONS for what, seconds in spent.items()}
    ratio = each["short"] / each["by_connect"]
    print(
        f"CPU of the enclave daemon: a CONNECT {each['by_connect'] * 1e6:.0f} µs, "
        f"a redirected connection {each['short'] * 1e6:.0f} µs ({ratio:.2f} of it), an answer {answer * 1e6:.0f} µs",
        flush=True,
    )
    return ""


def _cpu(pid: int) -> float:
    """Seconds of CPU that the process has used, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


TRIALS: Final[Mapping[str, Callable[[], str]]] = {
    "5,000 names, then 1,000 connections at once": many_names,
    "the daemon is killed between lookup and connect": partial(killed, 1, 0),
    "one of two workers is killed between lookup and connect": partial(killed, 2, 1),
    "the first of three processes is killed between lookup and connect": partial(killed, 2, 0),
    "an application's own 0.0.0.0:443, started before us": partial(own_listener, "4", "before"),
    "an application's own [::]:443, started before us": partial(own_listener, "6", "before"),
    "an application's own 0.0.0.0:443, started after us": partial(own_listener, "4", "after"),
    "an application's own [::]:443, started after us": partial(own_listener, "6", "after"),
    "1,000 questions a second": questions,
}

#: Those that take minutes: only by name.
LONG: Final[Mapping[str, Callable[[], str]]] = {
    "costs": costs,
    "the 65,537th name": too_many_names,
    "40,000 short connections": short_connections,
}
