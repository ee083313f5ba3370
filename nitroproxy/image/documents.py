"""The documents about an image: its description, its measurements, and the policy that clients verify it with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nitroproxy.image.measurements import Measurements
from nitroproxy.image.output import replacing
from nitroproxy.image.reader import Image

#: Seconds that an attestation document is accepted after it was signed.
_MAX_AGE: Final = 3600


def measurements_document(measured: Measurements) -> dict[str, Any]:
    """As nitro-cli prints measurements after a build."""
    return {"Measurements": measured.to_dict()}


def description(image: Image) -> dict[str, Any]:
    """What ``nitro-cli describe-eif`` prints, and sections, architecture and command line."""
    metadata = image.metadata
    sections = [
        {"kind": section.kind.name.lower(), "offset": section.offset, "bytes": section.size}
        for section in image.sections
    ]
    found = {
        "EifVersion": image.header.version,
        "Architecture": image.header.architecture.value,
        **measurements_document(image.measurements),
        "IsSigned": image.signature is not None,
        "CheckCRC": True,
        "ImageName": metadata.get("ImageName"),
        "ImageVersion": metadata.get("ImageVersion"),
        "Metadata": {
            **_object(metadata, "BuildMetadata"),
            "DockerInfo": metadata.get("DockerInfo"),
            "CustomMetadata": metadata.get("CustomMetadata"),
        },
        "Cmdline": image.cmdline,
        "Bytes": image.size,
        "Sections": sections,
    }
    if image.signature is not None:
        certificate = image.signature.certificate
        found["SigningCertificate"] = {
            "Issuer": certificate.issuer.rfc4514_string(),
            "Subject": certificate.subject.rfc4514_string(),
            "NotBefore": certificate.not_valid_before_utc.isoformat(),
            "NotAfter": certificate.not_valid_after_utc.isoformat(),
        }
    return found


def is_for_emulator(image: Image) -> bool:
    """Whether the metadata says that the kernel and boot ramdisk are the emulator's, which do not run on Nitro."""
    return _ours(image).get("boot") == "emulator"


def root_bytes(image: Image) -> int | None:
    """Bytes of the unpacked ramdisks as the metadata of an image of ours says; None when it does not."""
    ours = _ours(image).get("root_bytes")
    return ours if isinstance(ours, int) and not isinstance(ours, bool) and ours >= 0 else None


def policy_document(name: str, measured: Measurements, requirement: Mapping[str, Any]) -> dict[str, Any]:
    """A policy with one entry, which accepts this image alone.

    :param name: of the entry: the image's version.
    :param requirement: ``role``, ``instance`` or ``public``; when it is empty the entry gets an empty role, which
        ``nitroproxy attest verify`` refuses until it has been filled in.
    """
    registers = {"0": measured.pcr0, "1": measured.pcr1, "2": measured.pcr2}
    return {
        "accept": [{"name": name, "pcrs": registers, **(requirement or {"role": ""})}],
        "max_age": _MAX_AGE,
    }


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write *document* as JSON, whole or not at all.

    :raises ImageError: it cannot be written.
    """
    with replacing(path) as file:
        file.write((json.dumps(document, indent=2) + "\n").encode())


def _ours(image: Image) -> Mapping[str, Any]:
    return _object(_object(image.metadata, "CustomMetadata"), "nitroproxy")


def _object(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}
