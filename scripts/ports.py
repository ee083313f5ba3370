"""TCP ports of this machine's loopback, for the scripts: which are free, and which process listens on one.

``ports.py free`` prints a free port. ``ports.py owner PORT`` prints the pid of each process that has the socket that
listens on PORT, one a line; other users' cannot be seen. ``ports.py check PORT`` prints nothing when PORT can be
listened on; otherwise it prints who has it, and the status is 1.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LOOPBACK: Final = "127.0.0.1"
_LISTEN: Final = "0A"
#: The addresses that take connections to 127.0.0.1, as /proc/net/tcp and tcp6 write them (proc_net_tcp.txt): loopback,
#: any, any of IPv6, and loopback mapped into IPv6; the words are in the machine's byte order.
_TAKING: Final = frozenset(
    {"0100007F", "7F000001", "0" * 8, "0" * 32, "0000000000000000FFFF00000100007F", "00000000000000000000FFFF7F000001"}
)


def main(words: list[str]) -> int:
    """Do what *words* say; the exit status, 2 for words that mean nothing."""
    match words:
        case ["free"]:
            print(_free())
            return 0
        case ["owner", port] if _valid(port):
            for pid in _processes_with(_listening(int(port))):
                print(pid)
            return 0
        case ["check", port] if _valid(port):
            return _check(int(port))
    print(f"ports.py: expected a port from 1 to 65535, got {' '.join(words[1:])!r}", file=sys.stderr)
    return 2


def _free() -> int:
    """A port outside the range of outgoing connections, one of which could take it before it is listened on."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server((_LOOPBACK, port)):
            return port


def _valid(port: str) -> bool:
    return bool(re.fullmatch("[0-9]{1,5}", port)) and 1 <= int(port) <= 65535


def _check(port: int) -> int:
    try:
        socket.create_server((_LOOPBACK, port)).close()
    except OSError as error:
        pid = next(_processes_with(_listening(port)), None)
        print(f"it is taken by {_describe(pid)}" if pid else error.strerror)
        return 1
    return 0


def _listening(port: int) -> Iterator[str]:
    """The inodes of the sockets that take connections to *port* of 127.0.0.1."""
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net") / table
        for line in path.read_text("ascii").splitlines()[1:] if path.exists() else ():
            fields = line.split()
            address, _, hexadecimal = fields[1].partition(":")
            if fields[3] == _LISTEN and address in _TAKING and int(hexadecimal, 16) == port:
                yield fields[9]


def _processes_with(inodes: Iterator[str]) -> Iterator[int]:
    """The processes that have one of the sockets open."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) in wanted for link in (directory / "fd").iterdir()):
                yield int(directory.name)
        except OSError:
            continue


def _describe(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return f"pid {pid} ({command[:120]}) in {os.readlink(f'/proc/{pid}/cwd')}"
    except OSError:
        return f"pid {pid}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
