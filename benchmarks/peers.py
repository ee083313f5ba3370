"""nginx, haproxy, socat and stock Twisted, each with one worker, no cache, no access log and kept-alive connections."""

from __future__ import annotations

import sys
from typing import Final

from benchmarks.clients import Door
from benchmarks.origin import Origin
from benchmarks.processes import Crew, Process, free_port
from benchmarks.wrk import Entry

_NGINX: Final = """
worker_processes 1;
daemon off;
user root;
pid {directory}/nginx.pid;
error_log {directory}/nginx-error.log crit;
worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
    access_log off;
    keepalive_timeout 3600;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/nginx-body;
    proxy_temp_path {directory}/nginx-proxy;
    fastcgi_temp_path {directory}/nginx-fastcgi;
    uwsgi_temp_path {directory}/nginx-uwsgi;
    scgi_temp_path {directory}/nginx-scgi;
    upstream origin {{
        server unix:{upstream};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""

_HAPROXY: Final = """
global
    nbthread 1
    no strict-limits
    maxconn 30000
defaults
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
"""

_HAPROXY_HTTP: Final = """
frontend gateway
    mode http
    bind 127.0.0.1:{port} backlog 4096
    default_backend origin
backend origin
    mode http
    http-reuse always
    server origin unix@{upstream}
"""

_HAPROXY_TCP: Final = """
listen relay
    mode tcp
    option splice-auto
    bind unix@{path} backlog 4096
    server raw 127.0.0.1:{raw}
"""


def nginx(crew: Crew, origin: Origin) -> Entry:
    """nginx as a reverse proxy."""
    port = free_port()
    text = _NGINX.format(directory=crew.directory, port=port, upstream=origin.unix)
    errors = str(crew.directory / "nginx-error.log")
    path = crew.write("nginx.conf", text)
    process = crew.launch("nginx", ["nginx", "-e", errors, "-c", str(path)], ("127.0.0.1", port))
    return Entry(port, "", {"nginx": process.pid})


def haproxy(crew: Crew, origin: Origin) -> Entry:
    """haproxy in HTTP mode as a reverse proxy."""
    port = free_port()
    path = crew.write("haproxy.cfg", _HAPROXY + _HAPROXY_HTTP.format(port=port, upstream=origin.unix))
    process = crew.launch("haproxy", ["haproxy", "-q", "-f", str(path)], ("127.0.0.1", port))
    return Entry(port, "", {"haproxy": process.pid})


def stock_gateway(crew: Crew, origin: Origin) -> Entry:
    """A twisted.web Resource with an Agent."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.stock", "gateway", str(port), origin.unix]
    process = crew.launch("stock-gateway", command, ("127.0.0.1", port))
    return Entry(port, f"/https://localhost:{origin.tls}", {"host": process.pid})


def stock_chain(crew: Crew, origin: Origin, destination: int) -> Entry:
    """The whole chain of stock Twisted: Resource and Agent twice, TLS in the second, then a port forward."""
    relay, enclave, port = str(crew.directory / "sr.sock"), stock_enclave_socket(crew), free_port()
    stock = [sys.executable, "-m", "benchmarks.stock"]
    parts = {
        "relay": crew.launch("stock-relay", [*stock, "relay", relay, str(destination)], relay),
        "enclave": crew.launch("stock-enclave", [*stock, "enclave", enclave, relay, str(origin.ca)], enclave),
        "host": crew.launch("stock-host", [*stock, "gateway", str(port), enclave], ("127.0.0.1", port)),
    }
    pids = {role: process.pid for role, process in parts.items()}
    return Entry(port, f"/https://localhost:{destination}", pids)


def stock_enclave_socket(crew: Crew) -> str:
    """The socket of the stock chain's enclave."""
    return str(crew.directory / "se.sock")


def haproxy_relay(crew: Crew, raw: int) -> tuple[Door, Process]:
    """haproxy in TCP mode with splice-auto."""
    path = str(crew.directory / "haproxy.sock")
    configuration = crew.write("haproxy-tcp.cfg", _HAPROXY + _HAPROXY_TCP.format(path=path, raw=raw))
    return Door(path), crew.launch("haproxy-tcp", ["haproxy", "-q", "-f", str(configuration)], path)


def socat_relay(crew: Crew, raw: int) -> tuple[Door, Process]:
    """socat, a process for each connection."""
    path = str(crew.directory / "socat.sock")
    command = ["socat", "-b", "65536", f"UNIX-LISTEN:{path},fork,backlog=4096", f"TCP:127.0.0.1:{raw}"]
    return Door(path), crew.launch("socat", command, path)


def stock_relay(crew: Crew, raw: int) -> tuple[Door, Process]:
    """twisted.protocols.portforward."""
    path = str(crew.directory / "portforward.sock")
    command = [sys.executable, "-m", "benchmarks.stock", "relay", path, str(raw)]
    return Door(path), crew.launch("portforward", command, path)
