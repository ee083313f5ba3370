"""The cases by name, in the order in which they run. Each is a function from a `Plan` to a `CaseResult`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks.cases import (
    bodies,
    chain,
    enclave_processes,
    gateway,
    handshakes,
    idle,
    processes,
    relay,
    scaling,
    segments,
    startup,
    tunnels,
    writes,
)
from benchmarks.figures import CaseResult
from benchmarks.pairs import Plan

CASES: Final[dict[str, Callable[[Plan], CaseResult]]] = {
    "gateway": gateway.run,
    "chain": chain.run,
    "relay-down": relay.run_down,
    "relay-up": relay.run_up,
    "tunnels": tunnels.run,
    "writes": writes.run,
    "segments": segments.run_answers,
    "segments-tunnel": segments.run_writes,
    "handshakes-full": handshakes.run_full,
    "handshakes-resumed": handshakes.run_resumed,
    "connections": handshakes.run_enclave,
    "idle": idle.run,
    "scaling": scaling.run,
    "processes": processes.run,
    "enclave-processes": enclave_processes.run,
    "bodies-1m": bodies.run_1m,
    "bodies-1g": bodies.run_1g,
    "startup": startup.run,
}
