"""`nitroproxy image`: builds, describes, measures, extracts and signs enclave images."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from nitroproxy import __version__
from nitroproxy.commands.arguments import complain
from nitroproxy.image.archive import Root, read_root
from nitroproxy.image.build import BootKind, Built, Plan, build_image
from nitroproxy.image.directory import directory_tree
from nitroproxy.image.documents import description, measurements_document, policy_document, root_bytes, write_document
from nitroproxy.image.errors import ImageError
from nitroproxy.image.extract import extract_image
from nitroproxy.image.kernel import BLOBS, Boot, nitro_blobs, read_cmdline
from nitroproxy.image.layout import Architecture
from nitroproxy.image.measurements import Measurements
from nitroproxy.image.memory import needed
from nitroproxy.image.reader import Image, read_image
from nitroproxy.image.writer import write_signed
from nitroproxy.version import version_text

#: ``limits.connections`` of the default configuration, and MiB that an application is taken to need.
_CONNECTIONS: Final = 4000
_APPLICATION_MIB: Final = 32
_LATEST_TIME: Final = (1 << 32) - 1
#: Bytes of a certificate or key file at most.
_MOST_PEM: Final = 1 << 20


class UsageError(ImageError):
    """The arguments contradict each other or lack something; nothing has been written."""


def add_parser(subparsers: Any) -> None:
    """Add the command to *subparsers*, as `argparse.ArgumentParser.add_subparsers` returned them. Each of its own
    subcommands sets ``run``, a function that takes the parsed arguments and returns the exit status.
    """
    parser = subparsers.add_parser(
        "image",
        help="build, describe, measure, extract or sign an enclave image",
        description="Build, describe, measure, extract or sign an enclave image (EIF).",
    )
    parser.add_argument("--version", action="version", version=version_text())
    commands = parser.add_subparsers(dest="image_command", metavar="COMMAND", required=True)
    _add_build(commands)
    for name, run, text in (
        ("describe", _describe, "check an image and print what is in it, as JSON"),
        ("measure", _measure, "check an image and print its PCRs in nitro-cli's form"),
    ):
        command = _add_command(commands, name, text)
        command.add_argument("eif", type=Path, metavar="EIF", help="the image")
        if name == "measure":
            _add_documents(command)
            command.add_argument(
                "--entry-name", metavar="NAME", help="the policy's entry (default: the image's version)"
            )
        command.set_defaults(run=_reporting(run))
    extract = _add_command(commands, "extract", "check an image and write its sections to files in a new directory")
    extract.add_argument("eif", type=Path, metavar="EIF", help="the image")
    extract.add_argument("directory", type=Path, metavar="DIRECTORY", help="the directory to make; it must not exist")
    extract.set_defaults(run=_reporting(_extract))
    sign = _add_command(commands, "sign", "sign an image; a signature that it has is replaced")
    sign.add_argument("eif", type=Path, metavar="EIF", help="the image")
    sign.add_argument("--private-key", type=Path, required=True, metavar="PEM", help="an EC key, not encrypted")
    sign.add_argument("--signing-certificate", type=Path, required=True, metavar="PEM", help="its certificate")
    sign.add_argument("--output", type=Path, metavar="EIF", help="the signed image (default: the image itself)")
    sign.set_defaults(run=_reporting(_sign))


def _add_command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    """Add a subcommand with one text for the list of commands and for its own help."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    return command


def _add_build(commands: Any) -> None:
    build = _add_command(commands, "build", "build an image from a root file system, a kernel and a boot ramdisk")
    build.add_argument(
        "--root", type=Path, required=True, metavar="PATH", help="a directory, tar archive, or OCI or Docker archive"
    )
    build.add_argument("--output", type=Path, required=True, metavar="EIF", help="the image to write")
    build.add_argument("--blobs", type=Path, metavar="DIR", help=f"AWS's boot files (default: {BLOBS})")
    build.add_argument("--kernel", type=Path, metavar="FILE", help="a kernel, instead of the one among the blobs")
    build.add_argument("--cmdline", type=Path, metavar="FILE", help="the kernel's command line, instead of the blobs'")
    build.add_argument("--boot", type=Path, metavar="DIR", help="the boot ramdisk's tree, instead of the blobs' init")
    build.add_argument("--emulator", action="store_true", help="mark the image as one for the emulator only")
    build.add_argument(
        "--command", action="append", metavar="WORD", help="the program, then its arguments; repeat for each word"
    )
    build.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable of its environment; repeatable"
    )
    build.add_argument("--arch", choices=[one.value for one in Architecture], help="default: the root's, or x86_64")
    build.add_argument("--name", default="nitroproxy", help="the image's name (default: %(default)s)")
    build.add_argument("--image-version", default=__version__, metavar="VERSION", help="default: %(default)s")
    memory = "for the memory that is said to be needed (default: %(default)s)"
    build.add_argument("--connections", type=int, default=_CONNECTIONS, help=f"limits.connections, {memory}")
    build.add_argument("--application-mib", type=int, default=_APPLICATION_MIB, help=f"the application's, {memory}")
    _add_documents(build)
    build.set_defaults(run=_reporting(_build))


def _add_documents(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--measurements", type=Path, metavar="FILE", help="also write the PCRs to FILE")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="write a policy for `attest verify` to FILE")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--role", metavar="ARN", help="have the policy accept instances with this role only")
    who.add_argument("--instance", metavar="ID", help="have the policy accept this instance only")
    who.add_argument("--public", action="store_true", help="have the policy accept the image on any instance")


def _reporting(run: Any) -> Any:
    """*run* with its errors printed: 1 for an input that was refused, 2 for arguments that contradict each other."""

    def reporting(args: argparse.Namespace) -> int:
        try:
            run(args)
        except ImageError as error:
            failed = complain(str(error))
            return 2 if isinstance(error, UsageError) else failed
        return 0

    return reporting


def _print(document: Any) -> None:
    print(json.dumps(document, indent=2))


def _build(args: argparse.Namespace) -> None:
    _check_documents(args)
    with ExitStack() as stack:
        root = Root(directory_tree(args.root)) if args.root.is_dir() else read_root(args.root, stack)
        plan = _plan(args, root)
        built = build_image(plan, args.output)
    _write_documents(args, built.measurements, plan.version)
    _print(measurements_document(built.measurements))
    sys.stderr.write(_summary(args, built))


def _plan(args: argparse.Namespace, root: Root) -> Plan:
    architecture = Architecture(args.arch) if args.arch else root.architecture or Architecture.X86_64
    if root.architecture not in (None, architecture):
        raise UsageError(f"--arch {architecture.value}: the root file system is for {root.architecture.value}")
    boot, kind = _boot(args, architecture)
    return Plan(
        root=root.tree,
        boot=boot,
        boot_kind=kind,
        architecture=architecture,
        command=args.command or root.command,
        environment=[*root.environment, *args.env],
        name=args.name,
        version=args.image_version,
        tool_version=__version__,
        time=_time(),
    )


def _boot(args: argparse.Namespace, architecture: Architecture) -> tuple[Boot, BootKind]:
    own = (args.kernel, args.cmdline, args.boot)
    if all(own):
        if args.blobs:
            raise UsageError("--blobs: kernel, command line and boot ramdisk are all given; nothing is left for it")
        boot = Boot(args.kernel, read_cmdline(args.cmdline), directory_tree(args.boot))
        return boot, "emulator" if args.emulator else "custom"
    if args.emulator:
        raise UsageError("--emulator: needs --kernel, --cmdline and --boot")
    blobs = nitro_blobs(args.blobs or BLOBS, architecture)
    boot = Boot(
        args.kernel or blobs.kernel,
        read_cmdline(args.cmdline) if args.cmdline else blobs.cmdline,
        directory_tree(args.boot) if args.boot else blobs.ramdisk,
    )
    return boot, "custom" if any(own) else "nitro"


def _time() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not (text.isascii() and text.isdigit()) or int(text) > _LATEST_TIME:
        raise UsageError(f"SOURCE_DATE_EPOCH: expected seconds since 1970, up to {_LATEST_TIME}, got {text!r}")
    return int(text)


def _summary(args: argparse.Namespace, built: Built) -> str:
    memory = needed(built.image_bytes, built.root_bytes, args.connections, args.application_mib)
    return (
        f"{args.output}: {built.image_bytes} bytes; {built.root_bytes} bytes unpacked\n"
        f"memory for {args.connections} connections and {args.application_mib} MiB of application: {memory}\n"
    )


def _write_documents(args: argparse.Namespace, measured: Measurements, version: str) -> None:
    if args.measurements:
        write_document(args.measurements, measurements_document(measured))
    if args.policy:
        requirement = {
            name: value
            for name, value in (("role", args.role), ("instance", args.instance), ("public", args.public))
            if value
        }
        write_document(args.policy, policy_document(version, measured, requirement))


def _check_documents(args: argparse.Namespace) -> None:
    if not args.policy and (args.role or args.instance or args.public):
        raise UsageError("--role, --instance and --public are for the file that --policy names")


def _describe(args: argparse.Namespace) -> None:
    image = read_image(args.eif)
    found = description(image)
    if (unpacked := root_bytes(image)) is not None:
        found["MemoryMiB"] = needed(image.size, unpacked, _CONNECTIONS, _APPLICATION_MIB).least
    _print(found)


def _measure(args: argparse.Namespace) -> None:
    _check_documents(args)
    image = read_image(args.eif)
    _write_documents(args, image.measurements, args.entry_name or _version(image))
    _print(measurements_document(image.measurements))


def _version(image: Image) -> str:
    return str(image.metadata.get("ImageVersion") or "unnamed")


def _extract(args: argparse.Namespace) -> None:
    extract_image(args.eif, args.directory)


def _sign(args: argparse.Namespace) -> None:
    measured = write_signed(args.eif, args.output or args.eif, _pem(args.signing_certificate), _pem(args.private_key))
    _print(measurements_document(measured))


def _pem(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_PEM)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``nitroproxy image`` alone, as ``python -m nitroproxy.commands.image``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="nitroproxy")
    add_parser(parser.add_subparsers(metavar="COMMAND", required=True))
    args = parser.parse_args(["image", *(sys.argv[1:] if argv is None else argv)])
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
