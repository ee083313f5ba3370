"""Forward proxies, which are measured with ``--all`` only: they do more than the gateway, or take much longer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from benchmarks.install import ENVIRONMENT
from benchmarks.origin import Origin
from benchmarks.processes import Crew, Process, free_port
from benchmarks.wrk import Entry

_SQUID: Final = """
http_port 127.0.0.1:{port}
acl all_ports port 1-65535
http_access allow all_ports
cache deny all
cache_mem 8 MB
memory_pools on
access_log none
cache_log {directory}/squid.log
cache_store_log none
pid_filename {directory}/squid.pid
coredump_dir {directory}
workers 1
max_filedescriptors 16384
shutdown_lifetime 1 second
pinger_enable off
visible_hostname localhost
"""

_TINYPROXY: Final = """
User root
Group root
Port {port}
Listen 127.0.0.1
Timeout 600
MaxClients 1000
LogLevel Critical
LogFile "{directory}/tinyproxy.log"
PidFile "{directory}/tinyproxy.pid"
Allow 127.0.0.1
"""


def _forward(name: str, process: Process, port: int, origin: Origin) -> Entry:
    """The entry of a forward proxy, which takes absolute-form requests and reaches the origin over TCP."""
    return Entry(port, f"http://127.0.0.1:{origin.plain}", {name: process.pid})


def squid(crew: Crew, origin: Origin) -> Entry:
    """squid as a forward proxy."""
    port = free_port()
    path = crew.write("squid.conf", _SQUID.format(port=port, directory=crew.directory))
    crew.directory.chmod(0o755)
    log = crew.write("squid.log", "")
    log.chmod(0o666)
    process = crew.launch("squid", ["squid", "-N", "-f", str(path)], ("127.0.0.1", port))
    return _forward("squid", process, port, origin)


def tinyproxy(crew: Crew, origin: Origin) -> Entry:
    """tinyproxy as a forward proxy; it closes each connection after one request."""
    port = free_port()
    path = crew.write("tinyproxy.conf", _TINYPROXY.format(port=port, directory=crew.directory))
    process = crew.launch("tinyproxy", ["tinyproxy", "-d", "-c", str(path)], ("127.0.0.1", port))
    return replace(_forward("tinyproxy", process, port, origin), closes=True)


def proxy_py(crew: Crew, origin: Origin) -> Entry:
    """proxy.py as a forward proxy."""
    port = free_port()
    program = str(ENVIRONMENT / "bin/proxy")
    options = ["--hostname", "127.0.0.1", "--port", str(port), "--num-workers", "1", "--num-acceptors", "1"]
    command = [program, *options, "--log-level", "ERROR", "--data-dir", str(crew.directory / "proxy.py")]
    process = crew.launch("proxy.py", command, ("127.0.0.1", port))
    return _forward("proxy.py", process, port, origin)


def mitmproxy(crew: Crew, origin: Origin) -> Entry:
    """mitmdump as a forward proxy without add-ons."""
    port = free_port()
    program = str(ENVIRONMENT / "bin/mitmdump")
    options = ["--quiet", "--listen-host", "127.0.0.1", "--listen-port", str(port), "--set", "flow_detail=0"]
    command = [program, *options, "--set", f"confdir={crew.directory / 'mitmproxy'}"]
    process = crew.launch("mitmproxy", command, ("127.0.0.1", port))
    return _forward("mitmproxy", process, port, origin)


#: They take absolute-form requests and reach the origin over TCP.
FORWARD: Final[dict[str, Callable[[Crew, Origin], Entry]]] = {
    "squid": squid,
    "tinyproxy": tinyproxy,
    "proxy.py": proxy_py,
    "mitmproxy": mitmproxy,
}
