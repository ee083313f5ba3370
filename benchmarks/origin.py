"""The servers behind every proxy: nginx for HTTP and TLS 1.3, and `benchmarks.raw` for bytes without a protocol."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.processes import Address, Crew, free_port, free_ports
from nitroproxy.demo.certificates import ThrowAwayAuthority

_HEAD: Final = """
worker_processes 1;
daemon off;
user root;
pid {directory}/origin.pid;
error_log {directory}/origin-error.log crit;
worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
    access_log off;
    keepalive_timeout 3600;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    sendfile on;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    default_type application/octet-stream;
    ssl_certificate {directory}/server.pem;
    ssl_certificate_key {directory}/server.pem;
    ssl_protocols TLSv1.3;
    map $ssl_session_reused $resumed {{ r resumed; default full; }}
    log_format handshakes $resumed;
"""

_SERVER: Final = """
    server {{
        {listen}
        {more}
        location ~ /1k$ {{ return 200 "{kilobyte}"; }}
        location ~ /(1m|1g)$ {{ root {directory}/files; try_files /$1 =404; }}
        location ~ /upload$ {{
            proxy_pass http://127.0.0.1:{raw};
            proxy_request_buffering off;
            proxy_http_version 1.1;
        }}
    }}
"""


#: TLS ports of `Origin.tls_many`.
_MANY: Final = 33


@dataclass(frozen=True, slots=True)
class Origin:
    """The ports and paths that the servers listen on.

    :ivar plain: the TCP port of HTTP without TLS.
    :ivar tls: the port of HTTPS, connections kept alive.
    :ivar tls_full: the port of HTTPS where each connection serves one request and its session cannot be resumed.
    :ivar tls_resumed: the same with session tickets.
    :ivar tls_many: ports of HTTPS like *tls*, for clients that limit the connections kept to each port.
    :ivar raw: the port of `benchmarks.raw`.
    :ivar unix: the UNIX socket of HTTP without TLS, in place of the enclave.
    :ivar ca: the file with the certificate authority.
    :ivar handshakes: a file with a line for each request to *tls_full* and *tls_resumed*: ``full`` or ``resumed``.
    """

    plain: int
    tls: int
    tls_full: int
    tls_resumed: int
    tls_many: tuple[int, ...]
    raw: int
    unix: str
    ca: Path
    handshakes: Path


def start_origin(crew: Crew, unix: Path) -> Origin:
    """Start both servers.

    :param unix: the UNIX socket to listen on in place of the enclave.
    :raises Unmeasured: when nginx is not installed or does not start.
    """
    directory = crew.directory
    unix.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _identity(directory)
    _files(directory / "files")
    raw = start_raw(crew)
    ports = free_ports(4 + _MANY)
    origin = Origin(
        plain=ports[0],
        tls=ports[1],
        tls_full=ports[2],
        tls_resumed=ports[3],
        tls_many=tuple(ports[4:]),
        raw=raw,
        unix=str(unix),
        ca=directory / "ca.pem",
        handshakes=directory / "handshakes.log",
    )
    log = f"access_log {origin.handshakes} handshakes;"
    servers = [
        (f"listen 127.0.0.1:{origin.plain} backlog=4096; listen unix:{unix} backlog=4096;", ""),
        ("".join(f"listen 127.0.0.1:{port} ssl backlog=4096; " for port in (origin.tls, *origin.tls_many)), ""),
        (
            f"listen 127.0.0.1:{origin.tls_full} ssl backlog=4096;",
            f"keepalive_timeout 0; ssl_session_tickets off; ssl_session_cache off; {log}",
        ),
        (f"listen 127.0.0.1:{origin.tls_resumed} ssl backlog=4096;", f"keepalive_timeout 0; {log}"),
    ]
    text = _HEAD.format(directory=directory)
    for listen, more in servers:
        text += _SERVER.format(listen=listen, more=more, kilobyte="k" * 1024, directory=directory, raw=raw)
    configuration = crew.write("origin.conf", text + "}\n")
    command = ["nginx", "-e", str(directory / "origin-error.log"), "-c", str(configuration)]
    crew.launch("origin", command, ("127.0.0.1", origin.tls))
    return origin


def start_raw(crew: Crew, unix: Path | None = None) -> int:
    """Start `benchmarks.raw`, also on the UNIX socket *unix*; returns its port."""
    port = free_port()
    address: Address = ("127.0.0.1", port)
    places = [str(port)] if unix is None else [str(port), str(unix)]
    crew.launch("raw", [sys.executable, "-m", "benchmarks.raw", *places], address)
    return port


def _identity(directory: Path) -> None:
    authority = ThrowAwayAuthority()
    (directory / "ca.pem").write_bytes(authority.pem)
    (directory / "server.pem").write_bytes(authority.issue().pem)


def _files(directory: Path) -> None:
    directory.mkdir()
    for name, size in (("1m", 1 << 20), ("1g", 1 << 30)):
        with (directory / name).open("wb") as file:
            os.truncate(file.fileno(), size)
