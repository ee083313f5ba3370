"""The application in the enclave: does over the proxy what it is asked to over vsock, and tells of the proxy's process.
On loopback it serves HTTP, for clients from outside.

It runs alone in the enclave's image, with the standard library only. A request is one line of JSON, ``{"do": …}`` with
the arguments of the function of that name; the answer is another.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import http.client
import json
import os
import resource
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

PORT: Final = 7000
#: Where it serves HTTP.
HTTP_PORT: Final = 8000
_LOCAL: Final = 1
_CA_FILE: Final = "/etc/nitroproxy/ca.pem"


def fetch(url: str, canary: str = "") -> dict[str, Any]:
    """GET *url* by CONNECT through the proxy that HTTPS_PROXY names, with TLS of the application's own."""
    connection = _tunnel(url)
    connection.request("GET", urlsplit(url)._replace(scheme="", netloc="").geturl(), headers={"X-Canary": canary})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return {"status": response.status, "size": len(body), "has_canary": canary.encode() in body}


def run(words: list[str]) -> dict[str, Any]:
    """Run a program without any proxy variable: its exit status and output."""
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60, env=environ)
    return {"status": done.returncode, "output": done.stdout + done.stderr}


def stream(url: str) -> dict[str, Any]:
    """GET *url*, whose answer breaks off: how that looked."""
    connection = _tunnel(url)
    connection.request("GET", urlsplit(url)._replace(scheme="", netloc="").geturl())
    try:
        body = connection.getresponse().read()
    except (OSError, http.client.HTTPException) as error:
        return {"broken": type(error).__name__}
    return {"broken": "", "size": len(body)}


def demo(target: str) -> dict[str, Any]:
    """Run `nitroproxy demo` against *target* through the enclave's proxy: how many cases ended how."""
    report = Path("/tmp/demo.json")
    words = ["nitroproxy", "demo", "--proxy", os.environ["HTTPS_PROXY"], "--target", target, "--json", str(report)]
    ended = subprocess.run(words, check=False, capture_output=True, text=True, timeout=240)
    if not report.exists():
        raise ValueError(f"it ended with {ended.returncode}: {ended.stderr[-400:]}")
    return {"status": ended.returncode, "counts": json.loads(report.read_text())["counts"]}


def churn(url: str, count: int) -> dict[str, Any]:
    """Open *count* connections to the proxy, in various ways, and drop them."""
    target, done = urlsplit(url), 0
    for number in range(count):
        match number % 8:
            case 0 | 1 | 2:
                _proxy().close()
            case 3 | 4 | 5:
                half = _proxy()
                half.sendall(b"GET https://localhost/ HTTP/1.1\r\nHo")
                half.close()
            case 6:
                tunnel = _proxy()
                tunnel.sendall(f"CONNECT {target.netloc} HTTP/1.1\r\nHost: {target.netloc}\r\n\r\n".encode())
                _expect(tunnel.recv(1000), b"HTTP/1.1 200")
                tunnel.close()
            case 7:
                whole = _proxy()
                whole.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                _expect(whole.recv(65536), b"HTTP/1.1 ")
                while whole.recv(65536):
                    pass
                whole.close()
        done += 1
    return {"done": done}


def dial(cid: int, port: int) -> dict[str, Any]:
    """Connect over vsock, ask for something, and say how far that went."""
    if cid == _LOCAL:
        subprocess.run(["modprobe", "vsock_loopback"], check=True)
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        try:
            connection.connect((cid, port))
        except OSError as failed:
            return {"failed": errno.errorcode.get(failed.errno or 0, str(failed))}
        answer = b""
        with suppress(BrokenPipeError, ConnectionResetError):  # it has been closed already
            connection.sendall(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = connection.recv(1000)
        return {"answer": answer.decode("latin-1")}


def descriptors() -> dict[str, Any]:
    """The proxy's process, how many descriptors it has open, and its resident memory in bytes."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"nitroproxy-enclave" in command:
            resident = int((process / "statm").read_text().split()[1]) * resource.getpagesize()
            return {"pid": int(process.name), "count": len(os.listdir(process / "fd")), "resident": resident}
    return {"pid": 0, "count": 0, "resident": 0}


def attest(nonce: str) -> dict[str, Any]:
    """An attestation document of the Nitro Secure Module, in hexadecimal; its answer when that is another."""
    # The request {"Attestation": {"nonce": …}} in CBOR; the ioctl's structure has two buffers.
    request = b"\xa1\x6bAttestation\xa1\x65nonce" + bytes([0x58, len(nonce)]) + nonce.encode()
    question = ctypes.create_string_buffer(request, len(request))
    answer = ctypes.create_string_buffer(0x3000)
    message = bytearray(struct.pack("QQQQ", ctypes.addressof(question), len(request), ctypes.addressof(answer), 0x3000))
    with open("/dev/nsm", "rb") as module:
        fcntl.ioctl(module, 0xC0200A00, message, True)
    raw = answer.raw[: struct.unpack("QQQQ", message)[3]]
    marker = b"\xa1\x6bAttestation\xa1\x68document\x59"
    if not raw.startswith(marker):
        return {"refused": raw.decode("latin-1")}
    return {"document": raw[len(marker) + 2 :].hex()}


def clock() -> dict[str, Any]:
    """What time it is here, and by which clocks."""
    devices = sorted(name for name in os.listdir("/dev") if name.startswith(("ptp", "rtc")))
    return {"time": time.time(), "devices": devices}


def identity() -> dict[str, Any]:
    """Who the application is, and whether it may write to the root."""
    return {"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(), "writes": os.access("/etc", os.W_OK)}


def hog() -> dict[str, Any]:
    """Take memory until the kernel ends it."""
    taken = []
    while True:
        taken.append(b"x" * (1 << 20))


def leave(status: int) -> dict[str, Any]:
    """End with *status*."""
    print("application: leaving", flush=True)
    os._exit(status)


class Echo(BaseHTTPRequestHandler):
    """Answers a POST with its body."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer."""
        body = b"the application heard " + self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def register(data: str) -> dict[str, Any]:
    """Have the enclave's certificates carry *data*."""
    proxy = urlsplit(os.environ["HTTPS_PROXY"])
    connection = http.client.HTTPConnection(str(proxy.hostname), proxy.port, timeout=60)
    connection.request("PUT", "/enclave/attestation/user-data", data.encode())
    return {"status": connection.getresponse().status}


def _proxy() -> socket.socket:
    proxy = urlsplit(os.environ["HTTPS_PROXY"])
    return socket.create_connection((proxy.hostname, proxy.port or 80), timeout=60)


def _tunnel(url: str) -> http.client.HTTPSConnection:
    proxy, target = urlsplit(os.environ["HTTPS_PROXY"]), urlsplit(url)
    context = ssl.create_default_context(cafile=_CA_FILE)
    connection = http.client.HTTPSConnection(str(proxy.hostname), proxy.port, timeout=60, context=context)
    connection.set_tunnel(str(target.hostname), target.port)
    return connection


def _expect(seen: bytes, start: bytes) -> None:
    if not seen.startswith(start):
        raise ValueError(f"expected {start!r}, got {seen!r}")


_DO: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    function.__name__: function
    for function in (fetch, run, stream, demo, churn, dial, descriptors, attest, clock, identity, register, hog, leave)
}


def main() -> None:
    """Serve one request after the other."""
    serving = ThreadingHTTPServer(("127.0.0.1", HTTP_PORT), Echo)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as listening:
        listening.bind((socket.VMADDR_CID_ANY, PORT))
        listening.listen(16)
        print("application: ready", flush=True)
        while True:
            connection, _ = listening.accept()
            with connection, connection.makefile("rwb") as lines:
                request = json.loads(lines.readline())
                try:
                    answer = _DO[request.pop("do")](**request)
                except Exception as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                lines.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
