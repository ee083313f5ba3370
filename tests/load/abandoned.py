"""The trial of clients that leave: their requests end on every hop, and one that only half-closes is answered (K2)."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from typing import Final

from tests.load import client
from tests.load.client import Connection, Verdict
from tests.load.stack import Stack
from tests.load.stages import insist, report

#: Requests that are abandoned each second.
_RATE: Final = 10_000 / 60
#: Seconds after the last of them until all must be over.
_WITHIN: Final = 2.0
_RESET: Final = struct.pack("ii", 1, 0)


async def in_flight(stack: Stack) -> dict[str, int]:
    """The work under way on gateway, enclave and relay, without this query and the connections kept for reuse."""
    connection = Connection(*await asyncio.open_connection("127.0.0.1", stack.gateway), "")
    page = (await connection.read("/metrics")).decode("utf-8")
    connection.abort()

    def count(name: str, label: str) -> int:
        return sum(int(float(value)) for value in re.findall(rf"{name}{{[^}}]*{label}[^}}]*}} (\S+)", page))

    kept = count("nitroproxy_pool_connections", 'pool="destinations"')
    expected = {"host": 1, "enclave": 1, "relay": kept}
    under_way = {hop: count("nitroproxy_requests_in_flight", f'hop="nitroproxy-{hop}"') for hop in expected}
    return {hop: under_way[hop] - expected[hop] for hop in expected}


async def abandoned(count: int) -> None:
    """At the default limits *count* requests to a silent destination, 167 a second, each abandoned within 0.2 s."""
    async with Stack() as stack:
        request = f"GET /{stack.url}/bytes/10/1?pace=600 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

        async def leave(number: int) -> None:
            port = (stack.gateway, stack.loopback)[number % 2]
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            await asyncio.sleep((number % 5) * 0.05)
            if number % 3:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
            else:
                writer.close()

        began = time.monotonic()
        leaving = []
        for number in range(count):
            await asyncio.sleep(max(began + number / _RATE - time.monotonic(), 0))
            leaving.append(asyncio.create_task(leave(number)))
        half_closing = await stack.path_form()
        answered = await client.last_get(half_closing, 1000)
        await asyncio.gather(*leaving)
        ended = time.monotonic()
        most = left = await in_flight(stack)
        while any(left.values()) and time.monotonic() < ended + 10 * _WITHIN:
            await asyncio.sleep(0.1)
            left = await in_flight(stack)
        took = time.monotonic() - ended
        report(abandoned=count, in_flight_at_the_end=most, left=left, seconds_until_none_was_left=round(took, 2))
        insist(not any(left.values()), "nothing in flight on any hop")
        insist(took <= _WITHIN + 1, f"that within {_WITHIN:g} s, and a second to ask")
        insist(answered is Verdict.RIGHT, "a client that half-closes to be answered")
