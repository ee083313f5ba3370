"""Prints the bill of materials of the host's part as CycloneDX 1.6: the locked packages with their hashes.

usage: sbom.py VERSION REQUIREMENTS

The same lock gives the same bytes: the serial number is a digest of the content, the time is SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import uuid
from pathlib import Path
from typing import Any

_PACKAGE = re.compile(r"(?m)^([a-z0-9-]+)==([^ \\]+)[^\n]*\\\n((?:\s+--hash=sha256:[0-9a-f]{64}[^\n]*\n?)+)")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
#: In whose space the serial numbers are.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "nitroproxy")


def components(lock: str) -> list[dict[str, Any]]:
    """A component for each locked package, with the digests of the files that pip may choose from."""
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "externalReferences": [
                {
                    "type": "distribution",
                    "url": f"pkg:pypi/{name}@{version}",
                    "hashes": [{"alg": "SHA-256", "content": digest} for digest in _HASH.findall(hashes)],
                }
            ],
        }
        for name, version, hashes in _PACKAGE.findall(lock)
    ]


def bill(version: str, lock: str, when: int) -> dict[str, Any]:
    """The document.

    :param when: seconds since the epoch.
    """
    found = components(lock)
    own = f"pkg:generic/nitroproxy@{version}"
    serial = uuid.uuid5(_NAMESPACE, json.dumps([version, found]))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when)),
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "nitroproxy",
                "version": version,
                "licenses": [{"license": {"id": "MIT"}}],
            },
        },
        "components": found,
        "dependencies": [{"ref": own, "dependsOn": [one["bom-ref"] for one in found]}],
    }


if __name__ == "__main__":
    _, of, path = sys.argv
    document = bill(of, Path(path).read_text("utf-8"), int(os.environ.get("SOURCE_DATE_EPOCH", "0")))
    print(json.dumps(document, indent=2))
