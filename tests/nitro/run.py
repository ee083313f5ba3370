"""Runs an enclave image in the emulator until it ends or a signal comes, and prints its console (dev.sh enclave).

usage: python -m tests.nitro.run EIF DIRECTORY CA.pem

The image is EIF with a configuration for development in it: it may reach every port of this machine, and trusts CA.pem.
DIRECTORY is that of the host daemon's unix transport.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.nitro.derive import derive
from tests.nitro.enclave import EmulatedEnclave
from tests.nitro.qemu import find_qemu

_PORTS: Final = (5000,)
_COMMAND: Final = ("/opt/nitroproxy/bin/nitroproxy", "enclave-init")
_EGRESS: Final = {
    "allow": ["*:443", "localhost:*", "*.localhost:*", "127.0.0.1:*"],
    "allow_addresses": ["127.0.0.0/8", "::1/128"],
}


def main(arguments: Sequence[str]) -> int:
    """Run; 0 when it was ended by a signal, 1 when the enclave ended by itself."""
    base, directory, ca = (Path(argument) for argument in arguments)
    directory.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    image = directory / "enclave.eif"
    config = {"egress": _EGRESS, "tls": {"ca_file": "/etc/nitroproxy/ca.pem"}}
    files = {"etc/nitroproxy/config.json": json.dumps(config).encode(), "etc/nitroproxy/ca.pem": ca.read_bytes()}
    measured = derive(base, image, files, _COMMAND)
    print(json.dumps(measured.to_dict()), flush=True)
    enclave = EmulatedEnclave(find_qemu(), image, directory, _PORTS)
    try:
        enclave.start_switch()
        enclave.start()
        _show(enclave)
    finally:
        enclave.close()
    return 1


def _show(enclave: EmulatedEnclave) -> None:
    """Print the console as it grows, until the enclave has ended."""
    shown = 0
    while True:
        ended = enclave.exit_status is not None
        if enclave.console.exists():
            text = enclave.console.read_bytes()[shown:]
            shown += len(text)
            sys.stdout.buffer.write(text)
            sys.stdout.flush()
        if ended:
            return
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
