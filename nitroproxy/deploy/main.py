"""The command line of deploy.sh, and the order of the steps: checks that change nothing, changes that can be undone."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nitroproxy.deploy import allocator
from nitroproxy.deploy.artifacts import Artifacts, unpack
from nitroproxy.deploy.deployment import deploy, go_back
from nitroproxy.deploy.failure import Refused, Status
from nitroproxy.deploy.machine import Machine
from nitroproxy.deploy.remove import remove

_EPILOG = """exit status:
  0  deployed and ready, or nothing to do
  2  the command line or the configuration is wrong
  3  the instance: its system, Python, device, nitro-cli
  4  memory, processors, a CID or a port is missing
  5  the artifacts: the image, its measurements, the digests
  6  it did not start; what was there before runs again
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="deploy.sh",
        description="Deploy nitroproxy and its enclave to this instance, or upgrade them. Nothing is changed before "
        "every check has passed; what does not start is undone.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--artifacts", type=Path, required=True, help=argparse.SUPPRESS)
    what = made.add_mutually_exclusive_group()
    what.add_argument("--rollback", action="store_true", help="go back to the version before this one")
    what.add_argument("--uninstall", action="store_true", help="remove what was deployed; edited configuration stays")
    made.add_argument("--purge", action="store_true", help="with --uninstall: remove edited configuration, too")
    made.add_argument("--dry-run", action="store_true", help="check everything and say what would be done")
    made.add_argument("--eif", type=Path, metavar="FILE", help="the enclave's image [enclave.eif of the artifacts]")
    made.add_argument(
        "--allocate", action="store_true", help=f"set memory and CPUs aside in {allocator.FILE} if there are too few"
    )
    made.add_argument("--any-kernel", action="store_true", help="take an image that was built for the emulator")
    made.add_argument(
        "--timeout", type=float, default=120.0, metavar="SECONDS", help="to wait until it is ready [%(default)g]"
    )
    return made


def main(argv: Sequence[str], machine: Machine | None = None, *, isolated: bool = True) -> int:
    """Do what the command line says; returns the exit status.

    :param machine: this one when None.
    :param isolated: this Python has the standard library only, and the wheels are unpacked for what needs more.
    """
    arguments = parser().parse_args(argv)
    if arguments.purge and not arguments.uninstall:
        parser().error("--purge is for --uninstall")
    here = machine or Machine(Path("/"), os.environ)
    libraries = tempfile.mkdtemp(prefix="nitroproxy-deploy.") if isolated else None
    os.umask(0o022)
    try:
        if machine is None and os.geteuid() != 0:
            raise Refused(Status.USAGE, "run it as root: sudo ./deploy.sh")
        artifacts = Artifacts(arguments.artifacts)
        if libraries is not None:
            for wheel in artifacts.wheels(here.architecture):
                unpack(wheel, Path(libraries))
            sys.path.insert(0, libraries)
        if arguments.uninstall:
            remove(here, purge=arguments.purge, dry=arguments.dry_run, say=_say)
        elif arguments.rollback:
            go_back(here, arguments.timeout, dry=arguments.dry_run, say=_say)
        else:
            deploy(here, artifacts, arguments, say=_say)
    except Refused as error:
        sys.stdout.flush()
        for line in error.details.splitlines():
            sys.stderr.write(f"  {line}\n")
        sys.stderr.write(f"deploy.sh: {error}\n")
        return error.status
    finally:
        if libraries is not None:
            shutil.rmtree(libraries, ignore_errors=True)
    return 0


def _say(text: str) -> None:
    print(text, flush=True)
