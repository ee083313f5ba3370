"""The peers that are written in Go: our own few lines around its libraries (``gopeers/main.go``), and Caddy.

Each runs its Go code on one thread (GOMAXPROCS=1), as the other contenders have one worker.
"""

from __future__ import annotations

from typing import Final

from benchmarks.clients import Door
from benchmarks.install import GO_PEERS
from benchmarks.origin import Origin
from benchmarks.processes import Address, Crew, Process, free_port
from benchmarks.wrk import Entry

_CADDY: Final = """
{{
    admin off
    auto_https off
    log {{
        output discard
    }}
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy unix/{upstream} {{
        transport http {{
            keepalive 1h
            keepalive_idle_conns 4096
            keepalive_idle_conns_per_host 4096
            compression off
        }}
    }}
}}
"""
_ONE_THREAD: Final = {"GOMAXPROCS": "1"}


def _launch(crew: Crew, name: str, arguments: list[str], address: Address) -> Process:
    return crew.launch(name, [str(GO_PEERS), *arguments], address, _ONE_THREAD)


def reverse_proxy(crew: Crew, origin: Origin) -> Entry:
    """httputil.ReverseProxy."""
    port = free_port()
    process = _launch(crew, "go-gateway", ["gateway", str(port), origin.unix], ("127.0.0.1", port))
    return Entry(port, "", {"go": process.pid})


def caddy(crew: Crew, origin: Origin) -> Entry:
    """Caddy's reverse_proxy."""
    port = free_port()
    path = crew.write("Caddyfile", _CADDY.format(port=port, upstream=origin.unix))
    home = {"HOME": str(crew.directory), "XDG_DATA_HOME": str(crew.directory), "XDG_CONFIG_HOME": str(crew.directory)}
    command = ["caddy", "run", "--config", str(path), "--adapter", "caddyfile"]
    process = crew.launch("caddy", command, ("127.0.0.1", port), _ONE_THREAD | home)
    return Entry(port, "", {"caddy": process.pid})


def chain(crew: Crew, origin: Origin) -> Entry:
    """ReverseProxy as gateway, ReverseProxy with TLS 1.3 as enclave, goproxy as relay."""
    port, enclave, relay = free_port(), str(crew.directory / "ge.sock"), str(crew.directory / "gr.sock")
    parts = {
        "relay": _launch(crew, "go-relay", ["relay", relay], relay),
        "enclave": _launch(crew, "go-enclave", ["enclave", enclave, relay, str(origin.tls), str(origin.ca)], enclave),
        "host": _launch(crew, "go-host", ["gateway", str(port), enclave], ("127.0.0.1", port)),
    }
    return Entry(port, "", {role: process.pid for role, process in parts.items()})


def goproxy(crew: Crew, raw: int) -> tuple[Door, Process]:
    """elazarl/goproxy, asked by CONNECT as our relay is."""
    path = str(crew.directory / "goproxy.sock")
    return Door(path, f"127.0.0.1:{raw}"), _launch(crew, "goproxy", ["relay", path], path)
