"""Status documents for the tests of the page."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed

from nitroproxy.host.status import Daemon, Hop, Room, Status
from nitroproxy.telemetry.failures import Failure
from nitroproxy.telemetry.samples import COUNT, Sample
from nitroproxy.telemetry.states import LAYERS, State

GATEWAY, ENCLAVE, RELAY = "nitroproxy-host", "nitroproxy-enclave", "nitroproxy-relay"


def healthy(**changed: Any) -> Status:
    """A stack that has been well for an hour, with all that a page can show, but for what is *changed*."""
    samples: list[Sample | None] = [Sample(400.123 + n, 0.0123, 0.0091, 0.0412, 231.0) for n in range(COUNT)]
    codes = {"2xx": 219403118.0, "3xx": 1.0, "4xx": 1004201.0, "5xx": 408515.0, "none": 12.0}
    status = Status(
        status="pass",
        time=1767323045.5,
        age=2.5,
        machine="ip-10-0-3-17",
        cid=16,
        layers=[State(layer, "pass", "", 3600.0) for layer in LAYERS],
        daemons=[
            Daemon("host", True, "0.1.0", 1767323045.5 - 90061, True, 0.0),
            Daemon("enclave", True, "0.1.0", 1767323045.5 - 3600, True, 7.0),
        ],
        interval=5.0,
        samples={GATEWAY: samples, ENCLAVE: samples},
        hops=[Hop(hop, 2.2e8, codes, 19.0, 0.0091, 0.041, 9.4e10, 2.1e12, 3.0) for hop in (GATEWAY, ENCLAVE, RELAY)],
        failures=[Failure("dns_error", RELAY, f"host-{n}.example:443", n + 1, 12.0 * n, "a" * 32) for n in range(12)],
        room=[Room("connections", GATEWAY, 231.0, 4000.0), Room("memory", "enclave", 1.8e8, 5.2e8)],
        configuration=[("egress.allow", '["*.example.org:443"]', "/etc/nitroproxy/config.json")],
    )
    return msgspec.structs.replace(status, **changed)


def ask_status(what: str, about: Any, timeout: float = 0.7) -> Deferred[Any]:
    """Stands for `nitroproxy.daemon.role.AskOnce`: answers with the document, in plain values."""
    return succeed(msgspec.to_builtins(healthy()))
