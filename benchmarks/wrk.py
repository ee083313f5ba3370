"""Drives HTTP with wrk, and reads its report."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Sample, Unmeasured
from benchmarks.proc import CPUMeter

_SCRIPT: Final = """
wrk.method = "%(method)s"
wrk.path = "%(target)s"
wrk.headers["Host"] = "%(host)s"
wrk.body = %(body)s

function done(summary, latency, requests)
    io.write(string.format(
        '\\n{"requests":%%d,"us":%%d,"bytes":%%d,"status":%%d,"socket":%%d,"p50":%%f,"p99":%%f}\\n',
        summary.requests, summary.duration, summary.bytes, summary.errors.status,
        summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
        latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """How an HTTP client requests a path of the origin from a contender.

    :ivar port: its port on loopback.
    :ivar prefix: the part of the request target before the path.
    :ivar pids: the processes to measure, by role.
    :ivar closes: it closes each connection after an answer without announcing it, which wrk counts as an error.
    """

    port: int
    prefix: str
    pids: Mapping[str, int]
    closes: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """A request.

    :ivar upload: bytes of a request body; 0 for GET.
    """

    path: str
    connections: int
    seconds: int
    upload: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The counts of wrk. Times in milliseconds.

    :ivar seconds: the duration of the run.
    """

    requests: int
    seconds: float
    p50: float
    p99: float


def parse(output: str, *, closes: bool = False) -> Outcome:
    """Read what wrk printed by the script of this module.

    :param closes: see `Entry`.
    :raises Unmeasured: when there is no such line, or a request failed.
    """
    lines = [line for line in output.splitlines() if line.startswith('{"requests":')]
    if not lines:
        raise Unmeasured(f"wrk printed no summary: {output.strip()[-200:] or 'nothing'}")
    told: dict[str, Any] = json.loads(lines[-1])
    broken_off = max(0, told["socket"] - told["requests"]) if closes else told["socket"]
    if told["status"] or broken_off or not told["requests"]:
        raise Unmeasured(f"of {told['requests']} answers {told['status']} were no success; {told['socket']} broke off")
    return Outcome(told["requests"], told["us"] / 1e6, told["p50"] / 1e3, told["p99"] / 1e3)


def hit(entry: Entry, load: Load, directory: Path) -> Outcome:
    """Run wrk against *entry*.

    :param directory: for wrk's script.
    :raises Unmeasured: when wrk is not installed or anything failed.
    """
    script = directory / f"wrk-{entry.port}.lua"
    script.write_text(
        _SCRIPT
        % {
            "method": "POST" if load.upload else "GET",
            "target": entry.prefix + load.path,
            "host": f"localhost:{entry.port}",
            "body": f'string.rep("u", {load.upload})' if load.upload else "nil",
        }
    )
    command = ["wrk", "-t1", f"-c{load.connections}", f"-d{load.seconds}s", "--timeout", "30s", "-s", str(script)]
    try:
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{entry.port}/"],
            check=False,
            capture_output=True,
            text=True,
            timeout=load.seconds + 60,
            env={"PATH": os.environ.get("PATH", "")},
        )
    except FileNotFoundError as error:
        raise Unmeasured("wrk is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise Unmeasured("wrk did not end") from error
    return parse(done.stdout, closes=entry.closes)


def drive(entry: Entry, load: Load, directory: Path) -> Sample:
    """`hit` *entry*, and measure the CPU time of its processes, in µs a request."""
    meter = CPUMeter(entry.pids)
    meter.start()
    outcome = hit(entry, load, directory)
    used = meter.stop()
    per_request = {f"cpu_{role}": seconds / outcome.requests * 1e6 for role, seconds in used.items()}
    return {
        "cpu": sum(per_request.values()),
        **(per_request if len(per_request) > 1 else {}),
        "rate": outcome.requests / outcome.seconds,
        "p50": outcome.p50,
        "p99": outcome.p99,
    }
