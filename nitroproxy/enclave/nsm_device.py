"""Talks to the Nitro Security Module, /dev/nsm: one ioctl, two buffers, CBOR both ways. Blocks; knows no Twisted.

The interface is the kernel's (include/uapi/linux/nsm.h) and the messages are those of AWS's crate
``aws-nitro-enclaves-nsm-api``. The driver handles one call at a time for the whole enclave, and may take up to 120
seconds for one.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nitroproxy.attestation.cbor import decode, encode
from nitroproxy.attestation.refusal import Refused, printable

DEVICE: Final = "/dev/nsm"

#: _IOWR(0x0A, 0, struct nsm_raw), where nsm_raw is two times address and length of a buffer, 64 bits each.
IOCTL: Final = 0xC0200A00
_RAW: Final = struct.Struct("=QQQQ")
#: NSM_REQUEST_MAX_SIZE and NSM_RESPONSE_MAX_SIZE, in bytes.
REQUEST_BYTES: Final = 0x1000
RESPONSE_BYTES: Final = 0x3000

#: What a document may carry, least and most bytes (AWS, "Verifying the root of trust"). The NSM itself checks less:
#: it would sign longer fields, and verifiers would refuse the document.
LIMITS: Final[Mapping[str, tuple[int, int]]] = {"user_data": (0, 512), "nonce": (0, 512), "public_key": (1, 1024)}

#: What one GetRandom gives, in bytes.
RANDOM_BYTES: Final = 256

#: An answer is a map of a map, with a list in it.
_ANSWER_DEPTH: Final = 3


class NsmError(Exception):
    """There is no NSM, or it did not do what it was asked; the message says which, for a person."""


@dataclass(frozen=True)
class Description:
    """What the NSM says about itself.

    :ivar module_id: its name, as documents have it.
    :ivar version: of its interface.
    :ivar locked_pcrs: the PCRs that can no longer change; only these are in documents.
    """

    module_id: str
    version: str
    locked_pcrs: tuple[int, ...]


class NsmDevice:
    """An open NSM. Not to be used from two threads at once.

    :param path: the device.
    :raises NsmError: if it cannot be opened.
    """

    def __init__(self, path: str = DEVICE) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise NsmError(f"{path}: {error.strerror}; is this an enclave, and is its nsm driver loaded?") from error

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def attestation(
        self, *, user_data: bytes | None = None, nonce: bytes | None = None, public_key: bytes | None = None
    ) -> bytes:
        """A document that carries these. The caller checks their lengths with `check_lengths`.

        :raises NsmError: if the NSM fails.
        """
        fields = {"user_data": user_data, "nonce": nonce, "public_key": public_key}
        document = self._call("Attestation", fields).get("document")
        if type(document) is not bytes or not document:
            raise NsmError("the NSM answered Attestation without a document")
        return document

    def random(self) -> bytes:
        """256 bytes from the NSM's source of entropy.

        :raises NsmError: if the NSM fails.
        """
        octets = self._call("GetRandom").get("random")
        if type(octets) is not bytes or len(octets) != RANDOM_BYTES:
            raise NsmError(f"the NSM answered GetRandom without {RANDOM_BYTES} bytes")
        return octets

    def describe(self) -> Description:
        """What it is.

        :raises NsmError: if the NSM fails.
        """
        answer = self._call("DescribeNSM")
        module_id, locked = answer.get("module_id"), answer.get("locked_pcrs")
        version = [answer.get(f"version_{part}") for part in ("major", "minor", "patch")]
        if type(module_id) is not str or type(locked) is not list or any(type(n) is not int for n in locked + version):
            raise NsmError("the NSM answered DescribeNSM without a description")
        return Description(module_id, ".".join(map(str, version)), tuple(sorted(locked)))

    def _call(self, name: str, fields: Mapping[str, object] | None = None) -> dict[object, object]:
        """The fields of the answer to one request, each in the form that serde gives an enum.

        A request without fields is its name, one with fields is ``{name: {...}}``; the answer is the latter, or
        ``{"Error": code}``.
        """
        try:
            encoded = self._exchange(encode(name if fields is None else {name: fields}))
            answer, length = decode(encoded, _ANSWER_DEPTH)
        except OSError as error:
            raise NsmError(f"the NSM failed at {name}: {error.strerror}") from error
        except Refused as error:
            raise NsmError(f"the NSM's answer to {name} cannot be read: {error.detail}") from error
        if type(answer) is dict and len(answer) == 1 and length == len(encoded):
            if "Error" in answer:
                raise NsmError(f"the NSM refused {name}: {printable(str(answer['Error']))}")
            found = answer.get(name)
            if type(found) is dict:
                return found
        raise NsmError(f"the NSM answered {name} with an unexpected message")

    def _exchange(self, request: bytes) -> bytes:
        """The answer to one request.

        :raises NsmError: if request or answer are too long.
        :raises OSError: as the driver does: ETIMEDOUT after 120 seconds, EIO, ENODATA.
        """
        if len(request) > REQUEST_BYTES:
            raise NsmError(f"a request of {len(request)} bytes: the NSM takes {REQUEST_BYTES}")
        out = ctypes.create_string_buffer(request, len(request))
        into = ctypes.create_string_buffer(RESPONSE_BYTES)
        raw = bytearray(_RAW.pack(ctypes.addressof(out), len(request), ctypes.addressof(into), RESPONSE_BYTES))
        fcntl.ioctl(self._fd, IOCTL, raw, True)
        length = _RAW.unpack(raw)[3]
        # The driver cuts off what does not fit, and does not say so: a full buffer is not to be trusted.
        if not 0 < length < RESPONSE_BYTES:
            raise NsmError(f"an answer of {length} bytes, of which at most {RESPONSE_BYTES - 1} can be read")
        return into.raw[:length]


def check_lengths(**fields: bytes | None) -> None:
    """Check what a document shall carry; by their names in `LIMITS`, None for nothing.

    :raises ValueError: naming the first that is too short or too long.
    """
    for name, value in fields.items():
        least, most = LIMITS[name]
        if value is not None and not least <= len(value) <= most:
            raise ValueError(f"{name}: expected {least} to {most} bytes, got {len(value)}")
