"""The trials' clients: they run inside, use nothing of nitroproxy, and print what is wrong.

usage: python3 client.py WHAT [ARGUMENT...]
"""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Final

WHERE: Final = 7001
_DNS: Final = ("127.0.0.1", 53)


def expected(number: int) -> str:
    """Where the name n<number>.many.test is outside; see `tests.transparent.outside`."""
    return f"127.1.{number >> 8}.{number & 255}"


def question(name: str, identity: int = 1) -> bytes:
    """A question for an IPv4 address."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", identity, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def ask(asking: socket.socket, name: str) -> tuple[int, str]:
    """The code and the address of an answer."""
    asking.send(question(name))
    answer = asking.recv(512)
    code = answer[3] & 15
    return code, socket.inet_ntoa(answer[-4:]) if answer[7] else ""


def resolver() -> socket.socket:
    """A socket that asks the name server."""
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.settimeout(15)
    asking.connect(_DNS)
    return asking


def names(count: str) -> None:
    """So many names have addresses of their own, and the same when they are asked for again."""
    with resolver() as asking:
        first = [ask(asking, f"n{number}.many.test") for number in range(int(count))]
        again = [ask(asking, f"N{number}.many.test") for number in range(int(count))]
    assert len(set(first)) == int(count), "two names have one address"
    assert first == again, "a name has another address now"
    assert {code for code, _ in first} == {0}


def at_once(count: str) -> None:
    """So many connections at once, by addresses that were given out before; each reaches its own name.

    The addresses are asked for again first only where the daemon has not been killed: here they are computed from
    those of the first name, which says that they are in a row.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    base = struct.unpack("!I", socket.inet_aton("198.19.0.0"))[0]

    async def one(number: int) -> str:
        address = socket.inet_ntoa(struct.pack("!I", base + number))
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_connection(address, WHERE)
            line = (await reader.read()).decode().strip()
            writer.close()
        return "" if line == expected(number) else f"n{number} reached {line!r}, not {expected(number)}"

    async def every() -> list[str | BaseException]:
        return await asyncio.gather(*map(one, range(int(count))), return_exceptions=True)

    wrong = [repr(result) for result in asyncio.run(every()) if result]
    assert not wrong, f"{len(wrong)} of {count}: {wrong[:5]}"


def too_many() -> None:
    """All names there are, and one more."""
    with resolver() as asking:
        first = ask(asking, "n0.many.test")
        for number in range(1, 65536):
            code, _ = ask(asking, f"n{number}.many.test")
            assert code == 0, f"name {number}: code {code}"
        assert ask(asking, "n65536.many.test") == (2, ""), "the 65,537th name has an address"
        assert ask(asking, "n0.many.test") == first, "the first name has another address"
    with socket.create_connection((first[1], WHERE), 15) as connection:
        assert connection.recv(100).decode().strip() == expected(0)


def hold(family: str) -> None:
    """An application's own listener, on all addresses and the port that is connected to elsewhere; says whom it saw."""
    kind, place = (socket.AF_INET, "0.0.0.0") if family == "4" else (socket.AF_INET6, "::")
    with socket.create_server((place, 443), family=kind) as own:
        while True:
            accepted, peer = own.accept()
            with accepted:
                accepted.sendall(f"own {peer[0]}".encode())


def own_listener(family: str, when: str) -> None:
    """An application's own listener keeps what is its own, and connections to elsewhere go there.

    :param when: "before": it is there already; "after": it is started now.
    """
    loopback = "127.0.0.1" if family == "4" else "::1"
    if when == "after":
        threading.Thread(target=hold, args=(family,), daemon=True).start()
        time.sleep(0.5)
    with urllib.request.urlopen("https://upstream.test/get", timeout=15) as answer:
        assert answer.status == 200
    with socket.create_connection((loopback, 443), 15) as connection:
        line = connection.recv(100).decode()
        assert line == f"own {loopback}", line


def short(count: str) -> None:
    """So many connections in a row, each for one line."""
    with resolver() as asking:
        _, address = ask(asking, "n1.many.test")
    for number in range(int(count)):
        with socket.create_connection((address, WHERE), 15) as connection:
            line = b""
            while data := connection.recv(100):
                line += data
        assert line.decode().strip() == expected(1), f"connection {number}: {line!r}"


def by_connect(count: str) -> None:
    """The same by CONNECT."""
    for number in range(int(count)):
        with socket.create_connection(("127.0.0.1", 8080), 15) as connection:
            connection.sendall(b"CONNECT n1.many.test:7001 HTTP/1.1\r\nHost: n1.many.test:7001\r\n\r\n")
            answer = b""
            while data := connection.recv(1000):
                answer += data
        assert answer.startswith(b"HTTP/1.1 200") and answer.decode().strip().endswith(expected(1)), number


def questions(rate: str, seconds: str) -> None:
    """So many questions a second, evenly; all are answered."""
    total = int(rate) * int(seconds)
    answered = 0
    with resolver() as asking:
        began = time.monotonic()

        def take() -> None:
            nonlocal answered
            while answered < total:
                asking.recv(512)
                answered += 1

        taking = threading.Thread(target=take, daemon=True)
        taking.start()
        for number in range(total):
            wait = began + number / int(rate) - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            asking.send(question(f"n{number % 1000}.many.test", number & 0xFFFF))
        taking.join(15)
    assert answered == total, f"{answered} of {total} questions were answered"


def main() -> int:
    """Do what the first argument says."""
    what: Callable[..., None] = globals()[sys.argv[1]]
    try:
        what(*sys.argv[2:])
    except AssertionError as error:
        print(error or "wrong")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
