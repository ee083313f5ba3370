"""Starts the daemon with sockets that init holds, as systemd's socket activation does (sd_listen_fds(3)).

Init cannot do all of it: the environment names the pid of the process that the sockets are for. So this runs in that
process, moves the sockets to where they are looked for, and becomes twistd.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Final

#: The first descriptor of the protocol. Init's are above all that it has.
_FIRST: Final = 3
_FIRST_OF_INIT: Final = 64


def held(sockets: Mapping[str, socket.socket]) -> Mapping[str, int]:
    """Descriptors of *sockets* for `words`, which stay open whatever becomes of those."""
    return {name: fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, _FIRST_OF_INIT) for name, one in sockets.items()}


def words(descriptors: Mapping[str, int], arguments: Sequence[str]) -> list[str]:
    """The command that starts twistd with *arguments* and with those sockets, which it inherits."""
    numbers = ",".join(map(str, descriptors.values()))
    module = "nitroproxy.enclave.init_activation"
    return [sys.executable, "-P", "-m", module, numbers, ":".join(descriptors), *arguments]


def main() -> None:
    """Be that process."""
    numbers, names, *arguments = sys.argv[1:]
    descriptors = [int(number) for number in numbers.split(",")]
    for place, descriptor in enumerate(descriptors, _FIRST):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(descriptors)), "LISTEN_FDNAMES": names}
    sys.argv = ["twistd", *arguments]
    from twisted.scripts.twistd import run

    run()


if __name__ == "__main__":
    main()
