"""Adds files to an enclave image: a third ramdisk, which the kernel unpacks over the others. A test's image is made in
a second, and its PCR2 covers what was added.
"""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from nitroproxy.image.cpio import write_ramdisk
from nitroproxy.image.layout import SECTION_HEADER_BYTES, Kind
from nitroproxy.image.measurements import Measurements
from nitroproxy.image.output import replacing
from nitroproxy.image.reader import open_regular, read_image
from nitroproxy.image.tree import Node, Tree
from nitroproxy.image.writer import Part, write_image
from tests.vm.application import HTTP_PORT

_APPLICATION: Final = Path(__file__).resolve().parent.parent / "vm" / "application.py"
_COMMAND: Final = ("/opt/nitroproxy/bin/nitroproxy", "enclave-init", "/usr/bin/python3", "-u", "/app/application.py")


def derive(
    base: Path, output: Path, files: Mapping[str, bytes], command: Sequence[str], environment: Sequence[str] = ()
) -> Measurements:
    """Write the image at *base* with *files* in its root and another command to *output*.

    :param files: by path in the root.
    :param command: what the image's init starts.
    :param environment: in place of the base's, if any.
    """
    image = read_image(base)
    added = io.BytesIO()
    write_ramdisk(added, _tree(files, command, environment))
    with ExitStack() as stack, replacing(output) as out:
        parts = []
        for section in image.sections:
            file = stack.enter_context(open_regular(base))
            file.seek(section.offset + SECTION_HEADER_BYTES, os.SEEK_SET)
            parts.append(Part(section.kind, file, section.size))
        parts.append(Part.of(Kind.RAMDISK, added.getvalue()))
        return write_image(out, image.header.architecture, parts)


def derive_for_tests(
    base: Path,
    output: Path,
    ca_pem: bytes,
    user: str = "65533",
    limits: Mapping[str, object] | None = None,
    more: Mapping[str, bytes] | None = None,
) -> Measurements:
    """An image with the application of the VM tests, which trusts *ca_pem* and may reach the upstream on its parent.

    :param user: of the application; as the daemon's own, 65532, it can count the daemon's descriptors.
    :param limits: that section of the configuration.
    :param more: further files; with them applications need not know the proxy (enclave.transparent).
    """
    environment = ["PATH=/opt/nitroproxy/bin:/usr/bin:/bin", "LANG=C.UTF-8", f"NITROPROXY_APP_USER={user}"]
    allow = ["localhost:*"] if more is None else ["localhost:*", "*.test:*"]
    egress = {"allow": allow, "allow_addresses": ["127.0.0.0/8", "::1/128"]}
    config: dict[str, object] = {
        "egress": egress,
        "tls": {"ca_file": "/etc/nitroproxy/ca.pem"},
        "limits": limits or {},
        "attestation": {"device": "/dev/nsm", "emulated": True},
        "ingress": {"application": HTTP_PORT},
    }
    if more is not None:
        config["enclave"] = {"transparent": {"enabled": True}}
        environment.append("HTTPS_PROXY=http://127.0.0.1:8080")  # For what tries that way, too.
    files = {
        "app/application.py": _APPLICATION.read_bytes(),
        "etc/nitroproxy/config.json": json.dumps(config).encode(),
        "etc/nitroproxy/ca.pem": ca_pem,
        **(more or {}),
    }
    return derive(base, output, files, _COMMAND, environment)


def _tree(files: Mapping[str, bytes], command: Sequence[str], environment: Sequence[str]) -> Tree:
    tree = Tree()
    for path, data in [
        ("cmd", "".join(f"{word}\n" for word in command).encode()),
        *([("env", "".join(f"{entry}\n" for entry in environment).encode())] if environment else []),
        *((f"rootfs/{path}", data) for path, data in files.items()),
    ]:
        content: partial[BinaryIO] = partial(_open, data)
        mode = 0o755 if data.startswith(b"\x7fELF") else 0o644
        tree.add(path, Node(stat.S_IFREG | mode, size=len(data), content=content))
    return tree


def _open(data: bytes) -> BinaryIO:
    return io.BytesIO(data)
