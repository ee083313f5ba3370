"""`nitroproxy enclave-init` in a network namespace like an enclave's, as one user: a developer's interpreter is not
readable for others, so that neither the daemon nor the application could be started as one.

usage: python -m tests.transparent.inside DIRECTORY [COMMAND...], in namespaces of its own for network and mounts. Uses
config.json in the directory, and starts the command before anything else. The application of init prints "ready" and
waits: commands are run beside it (nsenter).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nitroproxy.enclave.init_root import run
from nitroproxy.enclave.init_system import bring_loopback_up

_APPLICATION: Final = "import signal; print('ready', flush=True); signal.pause()"


def main(directory: Path, early: Sequence[str]) -> int:
    """Be init."""
    if early:
        bring_loopback_up()
        subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *early])
        time.sleep(1)
    resolv = directory / "inside-resolv.conf"
    resolv.touch()
    subprocess.run(["mount", "--bind", str(resolv), "/etc/resolv.conf"], check=True)
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    os.geteuid = lambda: 65532  # What it does as root is done; whom it starts stays the same user.
    return run([sys.executable, "-c", _APPLICATION], str(directory / "config.json"), environ)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
