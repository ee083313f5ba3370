"""The stored documents of AWS's NSMs (tests/data/attestation), and policies that accept them."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from nitroproxy.attestation import Entry, Policy

DIRECTORY: Final = Path(__file__).parent.parent / "data" / "attestation"


@dataclass(frozen=True)
class Real:
    """A stored document.

    :ivar record: what documents.json says of it.
    """

    name: str
    data: bytes
    record: dict[str, Any]

    @property
    def genuine(self) -> bool:
        """Whether it is as an NSM of AWS made it."""
        return bool(self.record["expect"] == "verified")

    @property
    def signed(self) -> datetime:
        """When it was made."""
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self.record["timestamp_ms"])

    @property
    def pcrs(self) -> dict[int, bytes]:
        """Its measurements."""
        return {int(index): bytes.fromhex(value) for index, value in self.record["pcrs"].items()}

    @property
    def nonce(self) -> bytes | None:
        """Its nonce."""
        return None if self.record["nonce"] is None else bytes.fromhex(self.record["nonce"])

    def policy(self, max_age: timedelta | None = None, *, allow_debug: bool = True) -> Policy:
        """A policy that accepts it and no other enclave, by all of its measurements; of any age by default."""
        return Policy((Entry("its own", self.pcrs),), max_age, allow_debug=allow_debug)


def load(directory: Path = DIRECTORY) -> list[Real]:
    """The documents in *directory*, oldest first."""
    records = json.loads((directory / "documents.json").read_text("ascii"))
    return [
        Real(Path(record["file"]).stem, base64.b64decode((directory / record["file"]).read_text("ascii")), record)
        for record in records
    ]
