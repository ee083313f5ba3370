"""`nitroproxy attest`: attestation documents, by hand; and `attest_client`'s subcommands, which talk to an enclave.

Exit status: 0 verified, 1 refused, 2 the command line, the policy or the file cannot be used.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nitroproxy.attestation import Attestation, Policy, PolicyError, Refused, load_policy, verify
from nitroproxy.attestation.document import MAX_DOCUMENT
from nitroproxy.attestation.policy import shown
from nitroproxy.attestation.refusal import printable
from nitroproxy.commands.arguments import base_url

if TYPE_CHECKING:
    from nitroproxy.attestation.evidence import Identity
    from nitroproxy.commands.attest_client import Connects

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

#: The most bytes that are read: a document in base64, with line ends.
_MOST_READ: Final = 2 * MAX_DOCUMENT

_REFUSED: Final = 1
_USAGE: Final = 2

_FETCH_HELP: Final = """\
Connects to an enclave by attested TLS, verifies what it is and challenges it to prove that it has its key now. Prints
what is proven, and the pin of the enclave's key, with which curl talks to this enclave and no other until its daemon is
started again:

  curl -k --pinnedpubkey sha256//... https://HOST:8443/

Exit status: 0 verified, 1 refused (the rule that is broken is named), 2 there was nothing to verify.
"""
_FORWARD_HELP: Final = """\
Listens on this machine and leads each connection to an enclave by attested TLS: programs that know nothing of
attestation speak plain HTTP with it. A connection to an enclave that the policy does not accept is closed before a byte
of it has been sent. Whoever may connect to the local port may use it.
"""

_VERIFY_HELP: Final = """\
Verifies an attestation document: that an NSM of AWS signed it, when, and that the policy accepts the image. Prints
what it proves. Exit status: 0 verified, 1 refused (the rule that is broken is named), 2 nothing could be verified.

A policy:
  {"accept": [{"name": "v1.4", "pcrs": {"0": "...", "1": "...", "2": "..."},
               "role": "arn:aws:iam::123456789012:role/name"}],
   "max_age": 3600}
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``attest`` and its subcommands to the command line."""
    attest = subparsers.add_parser("attest", help="verify attestation documents")
    commands = attest.add_subparsers(metavar="COMMAND", required=True)
    parser = commands.add_parser(
        "verify",
        help="verify a document against a policy",
        description=_VERIFY_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "file", metavar="FILE", help="the document (COSE_Sign1), raw or in base64; - for standard input"
    )
    parser.add_argument("--policy", metavar="FILE", required=True, help="which images are accepted, on which instances")
    parser.add_argument("--nonce", metavar="HEX", type=_nonce, help="the nonce that the document must carry")
    parser.add_argument(
        "--archived",
        action="store_true",
        help="accept a document of any age, which proves nothing about the present",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    parser.set_defaults(run=run_verify)
    _add_fetch(commands)
    _add_forward(commands)


def _add_fetch(commands: Subparsers) -> None:
    parser = _of_enclave(commands, "fetch", "verify an enclave and print the pin of its key", _FETCH_HELP)
    parser.add_argument("--output", metavar="FILE", help="write the document of its certificate to this file")
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    parser.set_defaults(run=run_fetch)


def _add_forward(commands: Subparsers) -> None:
    parser = _of_enclave(commands, "forward", "lead connections to an enclave by attested TLS", _FORWARD_HELP)
    parser.add_argument(
        "--listen",
        metavar="ADDRESS:PORT",
        type=listen_address,
        default=("127.0.0.1", 8444),
        help="where to listen [127.0.0.1:8444]; port 0: a free one, which is printed",
    )
    parser.add_argument(
        "--challenge",
        action="store_true",
        help="have the enclave prove with each connection that it has its key now",
    )
    parser.set_defaults(run=run_forward)


def _of_enclave(commands: Subparsers, name: str, summary: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=summary, description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("url", metavar="URL", type=partial(base_url, schemes=["https"]), help="https://host:port")
    parser.add_argument("--policy", metavar="FILE", required=True, help="which images are accepted, on which instances")
    for option, what in (("certificate", "certificate and those that lead to its authority"), ("key", "private key")):
        parser.add_argument(f"--client-{option}", metavar="FILE", help=f"a PEM file: this client's own {what}")
    return parser


def listen_address(text: str) -> tuple[str, int]:
    """An argument: an IP address and a port.

    :raises argparse.ArgumentTypeError: it is none.
    """
    address, _, port = text.rpartition(":")
    try:
        host = str(ip_address(address.removeprefix("[").removesuffix("]")))
    except ValueError:
        host = ""
    if not host or not port.isascii() or not port.isdecimal() or int(port[:6]) > 65535:
        raise argparse.ArgumentTypeError(f"expected an IP address and a port such as 127.0.0.1:8444, got {text!r}")
    return host, int(port)


def run_fetch(args: argparse.Namespace) -> int:
    """Verify an enclave; the exit status."""
    from nitroproxy.commands.attest_client import fetch

    return _with_enclave(args, lambda connects: fetch(connects, lambda identity: _print_identity(args, identity)), True)


def run_forward(args: argparse.Namespace) -> int:
    """Lead connections to an enclave until a signal comes; the exit status."""
    from nitroproxy.commands.attest_client import forward

    return _with_enclave(args, lambda connects: forward(connects, args.listen), args.challenge)


def _with_enclave(args: argparse.Namespace, act: Callable[[Connects], int], challenge: bool) -> int:
    """Do something with the enclave that the arguments name."""
    from nitroproxy.commands.attest_client import connects_to

    files = (args.client_certificate, args.client_key)
    if (files[0] is None) != (files[1] is None):
        return _unusable("expected both --client-certificate and --client-key, or neither")
    try:
        connects = connects_to(args.url, load_policy(args.policy), challenge, files if files[0] is not None else None)
    except PolicyError as error:
        return _unusable(*error.problems)
    except ValueError as error:
        return _unusable(str(error))
    return act(connects)


def _print_identity(args: argparse.Namespace, identity: Identity) -> int:
    from nitroproxy.tls.attested_endpoint import pin_of

    attestation, policy = identity.attestation, load_policy(args.policy)
    pin, registered = pin_of(identity.spki), identity.user_data
    if args.output is not None:
        try:
            Path(args.output).write_bytes(identity.document)
        except OSError as error:
            return _unusable(f"{args.output}: cannot be written: {error.strerror}")
    if args.json:
        print(json.dumps({**_as_json(attestation, policy), "pin": pin, "registered": registered.hex()}, indent=2))
    else:
        print(_as_text(attestation, policy))
        print(f"registered  {registered.hex() or '(nothing)'}")
        print(f"pin         {pin}")
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Verify the document; the exit status."""
    try:
        policy = load_policy(args.policy)
        data = _read(args.file)
    except PolicyError as error:
        return _unusable(*error.problems)
    except OSError as error:
        return _unusable(f"{args.file}: cannot be read: {error.strerror}")
    if args.archived:
        policy = replace(policy, max_age=None)
    try:
        attestation = verify(data, policy, now=datetime.now(UTC), nonce=args.nonce)
    except Refused as refusal:
        if args.json:
            print(json.dumps({"verified": False, "rule": refusal.rule, "detail": refusal.detail}, indent=2))
        else:
            sys.stderr.write(f"nitroproxy: refused: {refusal}\n")
        return _REFUSED
    print(json.dumps(_as_json(attestation, policy), indent=2) if args.json else _as_text(attestation, policy))
    return 0


def _nonce(text: str) -> bytes:
    try:
        nonce = bytes.fromhex(text)
    except ValueError:
        nonce = b""
    if not 1 <= len(nonce) <= 512:
        raise argparse.ArgumentTypeError("expected 1 to 512 bytes in hexadecimal digits")
    return nonce


def _read(path: str) -> bytes:
    """The document in the file; no more than is needed to see that it is too long.

    :raises OSError: if it cannot be read.
    """
    if path == "-":
        data = sys.stdin.buffer.read(_MOST_READ + 1)
    else:
        with open(path, "rb") as file:
            data = file.read(_MOST_READ + 1)
    try:
        # A raw document begins with a byte that is not ASCII, so it is never taken for base64.
        return base64.b64decode(b"".join(data.split()), validate=True) or data
    except binascii.Error:
        return data


def _unusable(*problems: str) -> int:
    for problem in problems:
        sys.stderr.write(f"nitroproxy: {printable(problem)}\n")
    return _USAGE


def _as_json(attestation: Attestation, policy: Policy) -> dict[str, Any]:
    def octets(value: bytes | None) -> str | None:
        return None if value is None else value.hex()

    return {
        "verified": True,
        "entry": attestation.entry,
        "archived": policy.max_age is None,
        "debug": attestation.debug,
        "module_id": attestation.module_id,
        "timestamp": attestation.timestamp.isoformat(timespec="milliseconds"),
        "not_after": attestation.not_after.isoformat(),
        "root": attestation.root.hex(),
        "pcrs": {str(index): value.hex() for index, value in attestation.pcrs.items()},
        "public_key": octets(attestation.public_key),
        "user_data": octets(attestation.user_data),
        "nonce": octets(attestation.nonce),
    }


def _as_text(attestation: Attestation, policy: Policy) -> str:
    lines = [f"verified: the document matches the policy's entry {shown(attestation.entry)}"]
    if policy.max_age is None:
        lines.append("ARCHIVED: its age was not checked; it proves nothing about the present")
    if attestation.debug:
        lines.append("DEBUG: the enclave runs in debug mode; its image is not proven")
    lines.append(f"module_id   {printable(attestation.module_id)}")
    lines.append(f"signed      {attestation.timestamp.isoformat(timespec='milliseconds')}")
    lines.append(f"valid until {attestation.not_after.isoformat()}")
    for index, value in attestation.pcrs.items():
        if any(value):
            lines.append(f"PCR{index:<8} {value.hex()}")
    for name in ("public_key", "user_data", "nonce"):
        value = getattr(attestation, name)
        if value is not None:
            lines.append(f"{name:11} {value.hex() or '(empty)'}")
    return "\n".join(lines)
