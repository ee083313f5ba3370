"""An NSM without hardware: what the driver and the module do, behind `fcntl.ioctl` of this process, memory and all."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import cbor2

from nitroproxy.attestation import Entry, Policy
from tests.attestation import pki

MODULE_ID: Final = "i-0123456789abcdef0-enc0123456789abcdef"
_IOCTL: Final = 0xC0200A00
_REQUEST_BYTES: Final = 4096


class FakeNsm:
    """Signs documents with a PKI of its own.

    To use it, patch `fcntl.ioctl` with `ioctl`; the file descriptor may be that of any file.

    :param now: the time, in seconds since the epoch; None: always a minute after `pki.T0`.
    :ivar requests: what it was asked, decoded, in order.
    :ivar instead: if set, the answer to every request; an OSError is raised.
    :ivar chain: may be replaced.
    :ivar debug: show zeros for PCR0, 1 and 2.
    :ivar random: gives 256 bytes.
    """

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        self._now = now
        self.chain = pki.pki() if now is None else pki.pki_at(datetime.fromtimestamp(now(), UTC))
        self.debug = False
        self.random: Callable[[], bytes] = lambda: os.urandom(256)
        self.requests: list[Any] = []
        self.instead: bytes | OSError | None = None
        self._pcrs = {index: bytes([index + 1]) * 48 if index < 5 else bytes(48) for index in range(32)}
        self._locked = set(range(16))

    @property
    def policy(self) -> Policy:
        """One that accepts its documents."""
        return Policy((Entry("fake", {index: self._pcrs[index] for index in range(5)}),))

    def ioctl(self, fd: int, request: int, raw: bytearray, mutate: bool = True) -> int:
        """What the driver does (drivers/misc/nsm.c)."""
        assert request == _IOCTL and len(raw) == 32 and mutate
        address, length, into, room = struct.unpack("=QQQQ", raw)
        if length > _REQUEST_BYTES:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        answer = self._answer(ctypes.string_at(address, length))[:room]
        ctypes.memmove(into, answer, len(answer))
        raw[:] = struct.pack("=QQQQ", address, length, into, len(answer))
        return 0

    def _answer(self, encoded: bytes) -> bytes:
        request = cbor2.loads(encoded)
        self.requests.append(request)
        if isinstance(self.instead, OSError):
            raise self.instead
        if self.instead is not None:
            return self.instead
        name, fields = (request, {}) if isinstance(request, str) else next(iter(request.items()))
        return cbor2.dumps(self._respond(name, fields))

    def _respond(self, name: str, fields: Mapping[str, Any]) -> object:
        match name:
            case "DescribeNSM":
                described = {"version_major": 1, "version_minor": 2, "version_patch": 3, "module_id": MODULE_ID}
                more = {"max_pcrs": 32, "locked_pcrs": sorted(self._locked), "digest": "SHA384"}
                return {name: described | more}
            case "GetRandom":
                return {name: {"random": self.random()}}
            case "Attestation":
                shown = {index: self._shown(index) for index in self._pcrs if index in self._locked}
                payload = {**pki.fields(self.chain), "module_id": MODULE_ID, "pcrs": shown, **fields}
                if self._now is not None:
                    payload["timestamp"] = round(self._now() * 1000)
                return {name: {"document": pki.document(self.chain, payload)}}
        return {"Error": "InvalidOperation"}

    def _shown(self, index: int) -> bytes:
        return bytes(48) if self.debug and index < 3 else self._pcrs[index]
