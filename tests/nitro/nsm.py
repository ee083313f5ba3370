"""A Nitro Secure Module that signs, for QEMU's vhost-user-test-device (virtio-id 33), and hostile variants of it.

usage: python -m tests.nitro.nsm SOCKET CONTROL ROOT.pem EIF [--role ARN] [--instance ID]

It writes the root of its certificates to ROOT.pem: a verifier under test trusts that instead of AWS's. A line on the
UNIX socket CONTROL names the variant from then on; ``good`` is none. ``debug`` zeroes PCR0 to PCR2, ``signature``
spoils the signature, ``pcr`` attests another PCR0, ``stale`` and ``future`` sign a time of a day away, ``slow`` takes
5 s for each answer, ``invalid`` answers InvalidOperation.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from nitroproxy.image.measurements import Measurements
from nitroproxy.image.reader import read_image
from tests.nitro.authority import make_authority
from tests.nitro.loop import READ, Loop
from tests.nitro.vhost_user import Chain, Device

ROLE: Final = "arn:aws:iam::123456789012:role/test"
VARIANTS: Final = ("good", "debug", "signature", "pcr", "stale", "future", "slow", "invalid")
_REGISTERS: Final = 32
#: Locked from the start.
_LOCKED: Final = 16
_DAY: Final = 24 * 3600
_SLOWNESS: Final = 5.0
#: Bytes of what a request may bring at most.
_MOST: Final = {"user_data": 512, "nonce": 512, "public_key": 1024}


def initial_registers(measured: Measurements, role: str, instance: str) -> dict[int, bytes]:
    """All registers of an enclave that has just booted."""
    found = {number: bytes(48) for number in range(_REGISTERS)}
    for number, value in ((0, measured.pcr0), (1, measured.pcr1), (2, measured.pcr2), (8, measured.pcr8)):
        found[number] = bytes.fromhex(value) if value else bytes(48)
    for number, text in ((3, role), (4, instance)):
        found[number] = hashlib.sha384(bytes(48) + text.encode()).digest()
    return found


class Module:
    """The module's state and its answers, whatever carries them.

    :ivar variant: one of `VARIANTS`.
    """

    def __init__(self, registers: dict[int, bytes], instance: str) -> None:
        self.authority = make_authority(datetime.datetime.now(datetime.UTC))
        self._registers = registers
        self._locked = set(range(_LOCKED))
        self._name = f"{instance}-enc0123456789abcde"
        self.variant = VARIANTS[0]

    def answer(self, question: bytes) -> bytes:
        """The answer to a request, both CBOR."""
        if self.variant == "slow":
            time.sleep(_SLOWNESS)
        try:
            asked = cbor2.loads(question)
            name, values = (asked, {}) if isinstance(asked, str) else next(iter(asked.items()))
            do = getattr(self, f"_do_{name}", None)
            if do is None or self.variant == "invalid":
                return cbor2.dumps({"Error": "InvalidOperation"})
            return cbor2.dumps(do(**values))
        except (ValueError, TypeError, LookupError, StopIteration) as error:
            print(repr(error), flush=True)
            return cbor2.dumps({"Error": "InvalidArgument"})

    def _do_GetRandom(self) -> Mapping[str, Any]:
        return {"GetRandom": {"random": os.urandom(256)}}

    def _do_DescribeNSM(self) -> Mapping[str, Any]:
        version = {"version_major": 1, "version_minor": 0, "version_patch": 0}
        facts = {
            "module_id": self._name,
            "max_pcrs": _REGISTERS,
            "locked_pcrs": sorted(self._locked),
            "digest": "SHA384",
        }
        return {"DescribeNSM": {**version, **facts}}

    def _do_DescribePCR(self, index: int) -> Mapping[str, Any]:
        if index not in self._registers:
            return {"Error": "InvalidIndex"}
        return {"DescribePCR": {"lock": index in self._locked, "data": self._registers[index]}}

    def _do_ExtendPCR(self, index: int, data: bytes) -> Mapping[str, Any]:
        if index not in self._registers:
            return {"Error": "InvalidIndex"}
        if index in self._locked:
            return {"Error": "ReadOnlyIndex"}
        self._registers[index] = hashlib.sha384(self._registers[index] + data).digest()
        return {"ExtendPCR": {"data": self._registers[index]}}

    def _do_LockPCR(self, index: int) -> str:
        self._locked.add(index)
        return "LockPCR"

    def _do_LockPCRs(self, range: int) -> str:
        self._locked.update(number for number in self._registers if number < range)
        return "LockPCRs"

    def _do_Attestation(
        self, user_data: bytes | None = None, nonce: bytes | None = None, public_key: bytes | None = None
    ) -> Mapping[str, Any]:
        given = {"user_data": user_data, "nonce": nonce, "public_key": public_key}
        if any(value is not None and len(value) > _MOST[name] for name, value in given.items()):
            return {"Error": "InputTooLarge"}
        shift = {"stale": -_DAY, "future": _DAY}.get(self.variant, 0)
        payload = cbor2.dumps(
            {
                "module_id": self._name,
                "digest": "SHA384",
                "timestamp": int((time.time() + shift) * 1000),
                "pcrs": {number: self._attested(number) for number in self._registers if number in self._locked},
                "certificate": self.authority.leaf,
                "cabundle": self.authority.bundle,
                **given,
            }
        )
        return {"Attestation": {"document": self._sign(payload)}}

    def _attested(self, number: int) -> bytes:
        if self.variant == "debug" and number <= 2:
            return bytes(48)
        return bytes(range(48)) if self.variant == "pcr" and number == 0 else self._registers[number]

    def _sign(self, payload: bytes) -> bytes:
        protected = cbor2.dumps({1: -35})
        signed = cbor2.dumps(["Signature1", protected, b"", payload])
        r, s = decode_dss_signature(self.authority.key.sign(signed, ec.ECDSA(hashes.SHA384())))
        if self.variant == "signature":
            r ^= 1
        return cbor2.dumps([protected, {}, payload, r.to_bytes(48) + s.to_bytes(48)])


class NSM(Device):
    """The module as a virtio device. The driver gives a request and the place for its answer one after the other, and
    wants both back when it is told."""

    def __init__(self, loop: Loop, path: Path, module: Module) -> None:
        super().__init__(loop, path, 1)
        self._module = module
        self._question: tuple[Chain, bytes] | None = None

    def stopped(self) -> None:
        """See `Device`."""
        self._question = None

    def work(self) -> None:
        """See `Device`."""
        ring = self.rings[0]
        while chain := ring.chain():
            if chain.readable and not chain.writable:
                self._question = chain, b"".join(chain.readable)
            elif self._question is not None:
                asked, question = self._question
                self._question = None
                ring.done(asked, 0, tell=False)
                ring.done(chain, chain.write(self._module.answer(question)))


def _controlled(loop: Loop, module: Module, peer: socket.socket) -> None:
    def read(events: int) -> None:
        data = peer.recv(100)
        for word in data.decode().split():
            known = word in VARIANTS
            module.variant = word if known else module.variant
            peer.sendall(b"ok\n" if known else b"unknown\n")
        if not data:
            loop.forget(peer)
            peer.close()

    loop.watch(peer, READ, read)


def main(arguments: Sequence[str]) -> None:
    """Run until a signal."""
    parser = argparse.ArgumentParser()
    for name in ("socket", "control", "root", "image"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--role", default=ROLE)
    parser.add_argument("--instance", default="i-0123456789abcdef0")
    options = parser.parse_args(arguments)
    registers = initial_registers(read_image(options.image).measurements, options.role, options.instance)
    module = Module(registers, options.instance)
    options.root.write_bytes(module.authority.root_pem)
    loop = Loop()
    NSM(loop, options.socket, module)
    loop.listen(options.control, lambda peer: _controlled(loop, module, peer))
    loop.run()


if __name__ == "__main__":
    main(sys.argv[1:])
