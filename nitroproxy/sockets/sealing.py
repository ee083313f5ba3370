"""The end of a listening socket, without a reset for those who have connected to it.

A connection enters the queue of a listening socket when its handshake is over, and close() resets what is in the
queue: also what entered between the last accept() and close(). So the kernel is first told to let nothing more in,
in a way that depends on the socket's family:

- TCP: a filter on the socket (SO_ATTACH_FILTER, socket(7)) drops the segments that would begin a handshake, then, when
  those under way have had a `MOMENT` to finish, every segment. A client whose segment is dropped sends it again after a
  second: it is refused then, or meets whoever listens by then.
- UNIX: after shutdown() the kernel refuses connections and keeps those in the queue.
- vsock has neither. With a backlog of 0 one connection at most can wait, and others are refused; what is left is the
  time between two system calls.

All processes that have the socket share it, and so the effect: not for one from which others go on accepting.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final

#: Seconds for handshakes under way: a round trip to the client.
MOMENT: Final = 0.1
#: asm-generic/socket.h; Python does not name it.
_SO_ATTACH_FILTER: Final = 26

#: Classic BPF, which begins at the TCP header: code, jump if true, jump if false, operand (linux/filter.h).
_Instruction = tuple[int, int, int, int]
_DROP: Final = (0x06, 0, 0, 0)
_PASS: Final = (0x06, 0, 0, 0xFFFFFFFF)
_LOAD_FLAGS: Final = (0x30, 0, 0, 13)
_UNLESS_SYN_SKIP_ONE: Final = (0x45, 0, 1, 0x02)


def admit_no_more(listening: Any) -> float:
    """Let nobody begin to connect to *listening* from now on.

    :param listening: a `socket.socket`, or what stands in for one.
    :returns: seconds after which `seal` is to be called.
    """
    with contextlib.suppress(OSError):  # Where the kernel knows no such thing, closing is a little less clean.
        if listening.family in (socket.AF_INET, socket.AF_INET6):
            _filter(listening, [_LOAD_FLAGS, _UNLESS_SYN_SKIP_ONE, _DROP, _PASS])
            return MOMENT
        if listening.family == socket.AF_UNIX:
            listening.shutdown(socket.SHUT_RD)
        else:
            listening.listen(0)
    return 0.0


def seal(listening: Any) -> None:
    """Let nothing more into the queue of *listening*: what is in it can be accepted, and then it stays empty."""
    with contextlib.suppress(OSError):
        if listening.family in (socket.AF_INET, socket.AF_INET6):
            _filter(listening, [_DROP])


def _filter(listening: Any, program: Sequence[_Instruction]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code)))
