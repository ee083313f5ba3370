"""The accepted images and the instances that may run them: values and their rules. Knows nothing of files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from nitroproxy.attestation.refusal import Refused, printable

#: How many PCRs there are, and the length of each in bytes (SHA-384).
PCR_COUNT: Final = 32
PCR_BYTES: Final = 48

#: PCR0, 1 and 2 measure the image. PCR0 alone does not: it is a hash of a concatenation without lengths.
IMAGE: Final = (0, 1, 2)
ROLE: Final = 3
INSTANCE: Final = 4
#: Measures the certificate with which the image is signed.
SIGNER: Final = 8

MAX_ENTRIES: Final = 256
MAX_NAME: Final = 128
#: Seconds. The certificate under a document lives for three hours: no document is good for longer.
LONGEST_AGE: Final = 10800
DEFAULT_AGE: Final = timedelta(hours=1)

_ZEROS: Final = bytes(PCR_BYTES)
_ROLE: Final = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]{1,512}")
_INSTANCE: Final = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")

#: The longest value that a message shows whole.
_SHOWN_CHARACTERS: Final = 80

#: What to write where an instance's identity is missing.
BINDING: Final = (
    '"role" (the ARN of the instance\'s IAM role, such as "arn:aws:iam::123456789012:role/name"), "instance" (such as '
    '"i-0123456789abcdef0"), or "public": true, which accepts the image on any instance of any account'
)


class PolicyError(ValueError):
    """A policy cannot be used.

    :ivar problems: everything that is wrong with it, one line each: path, what was expected, what was there.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Entry:
    """One image that is accepted, and where it may run.

    :ivar name: what to call it, for people.
    :ivar pcrs: measurements that must be equal: PCR0, 1 and 2, or PCR8, and any others.
    :ivar role: the ARN of the IAM role that the instance must have; hashed into PCR3.
    :ivar instance: the id of the instance; hashed into PCR4.
    :ivar public: whether any instance of any account may run it; role and instance are then not given.
    :raises PolicyError: when it is made, with everything that is wrong.
    """

    name: str
    pcrs: Mapping[int, bytes]
    role: str | None = None
    instance: str | None = None
    public: bool = False

    def __post_init__(self) -> None:
        problems = [*self._malformed(), *self._missing()]
        if problems:
            raise PolicyError(problems)

    def required(self) -> dict[int, bytes]:
        """Every measurement that a document must show."""
        required = dict(self.pcrs)
        if self.role is not None:
            required[ROLE] = measure(self.role.encode("ascii"))
        if self.instance is not None:
            required[INSTANCE] = measure(self.instance.encode("ascii"))
        return required

    def _malformed(self) -> Iterator[str]:
        if not is_name(self.name):
            yield f"name: expected 1 to {MAX_NAME} printable characters, got {shown(self.name)}"
        for index, value in self.pcrs.items():
            if not 0 <= index < PCR_COUNT:
                yield f"pcrs.{index}: expected an index 0 to {PCR_COUNT - 1}"
            if len(value) != PCR_BYTES:
                yield f"pcrs.{index}: expected {PCR_BYTES} bytes, got {len(value)}"
        if self.role is not None and not _ROLE.fullmatch(self.role):
            yield (
                f"role: expected the ARN of an IAM role (not of an instance profile or a session), got "
                f"{shown(self.role)}; fill in one of: {BINDING}"
            )
        if self.instance is not None and not _INSTANCE.fullmatch(self.instance):
            yield f"instance: expected an EC2 instance id, got {shown(self.instance)}; fill in one of: {BINDING}"

    def _missing(self) -> Iterator[str]:
        given = self.pcrs.keys()
        if not given >= set(IMAGE) and SIGNER not in given:
            yield f"pcrs: expected PCR0, 1 and 2, or PCR8, got {', '.join(f'PCR{i}' for i in sorted(given)) or 'none'}"
        if not given >= set(IMAGE) and self.pcrs.get(SIGNER) == _ZEROS:
            yield "pcrs.8: expected the measurement of a signing certificate, got zeros, which every unsigned image has"
        zeros = [index for index in IMAGE if self.pcrs.get(index) == _ZEROS]
        if zeros and len(zeros) != len(IMAGE):
            yield f"pcrs.{zeros[0]}: expected the measurement of an image, got zeros"
        for key, index, value in (("role", ROLE, self.role), ("instance", INSTANCE, self.instance)):
            if value is not None and index in given:
                yield f"pcrs.{index}: expected either this or {key}, which is hashed into PCR{index}, got both"
        bound = self.role is not None or self.instance is not None
        bound = bound or any(self.pcrs.get(index, _ZEROS) != _ZEROS for index in (ROLE, INSTANCE))
        if self.public and bound:
            yield "public: expected false beside a role or an instance, got true"
        if not self.public and not bound:
            yield f"role: missing; say where the image may run: {BINDING}"


@dataclass(frozen=True)
class Policy:
    """What is accepted.

    :ivar entries: the images; one of them must match.
    :ivar max_age: the greatest age of a document; None for archived ones, which prove nothing about the present.
    :ivar allow_debug: whether enclaves in debug mode are accepted, by entries whose PCR0, 1 and 2 are zeros.
    :raises PolicyError: when it is made, with everything that is wrong.
    """

    entries: tuple[Entry, ...]
    max_age: timedelta | None = DEFAULT_AGE
    allow_debug: bool = False

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise PolicyError(problems)

    def match(self, pcrs: Mapping[int, bytes]) -> Entry:
        """The first entry that these measurements of a document match.

        :raises Refused: rule ``debug`` or ``policy``.
        """
        if is_debug(pcrs) and not self.allow_debug:
            raise Refused("debug", "PCR0, 1 and 2 are zeros: the enclave runs in debug mode, its image is not proven")
        best: tuple[int, str] | None = None
        for entry in self.entries:
            required = entry.required()
            different = [index for index, value in sorted(required.items()) if pcrs.get(index) != value]
            if not different:
                return entry
            if best is None or len(different) < best[0]:
                best = len(different), _difference(entry, different, required, pcrs)
        assert best is not None
        raise Refused("policy", f"no entry matches; the closest is {best[1]}")

    def _problems(self) -> Iterator[str]:
        if not 1 <= len(self.entries) <= MAX_ENTRIES:
            yield f"accept: expected 1 to {MAX_ENTRIES} entries, got {'more' if self.entries else 'none'}"
        names = [entry.name for entry in self.entries]
        for place, entry in enumerate(self.entries):
            if entry.name in names[:place]:
                yield f"accept[{place}].name: expected a name that no other entry has, got {shown(entry.name)}"
            if is_debug(entry.pcrs) and not self.allow_debug:
                yield (
                    f"accept[{place}].pcrs: expected the measurements of an image, got zeros, which every enclave in "
                    'debug mode has; to accept those add "allow_debug": true'
                )
        if self.max_age is not None and not timedelta(0) < self.max_age <= timedelta(seconds=LONGEST_AGE):
            yield f"max_age: expected seconds, 1 to {LONGEST_AGE}, got {self.max_age.total_seconds():g}"


def is_name(text: str) -> bool:
    """Whether *text* may be an entry's name."""
    return 1 <= len(text) <= MAX_NAME and text.isprintable()


def measure(data: bytes) -> bytes:
    """The PCR that was extended once with *data*, as PCR3 is with the role's ARN and PCR4 with the instance's id."""
    return hashlib.sha384(_ZEROS + data).digest()


def is_debug(pcrs: Mapping[int, bytes]) -> bool:
    """Whether these are an enclave's in debug mode: the NSM shows zeros for PCR0, 1 and 2."""
    return all(index in pcrs and not any(pcrs[index]) for index in IMAGE)


def shown(value: object) -> str:
    """*value* for a message: on one line, and not too long; a string in quotes, all else as JSON."""
    text = printable(repr(value) if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def _difference(entry: Entry, different: list[int], required: Mapping[int, bytes], pcrs: Mapping[int, bytes]) -> str:
    first, *others = different
    key = {ROLE: " (the role)", INSTANCE: " (the instance)"}.get(first, "")
    got = pcrs.get(first)
    text = "absent" if got is None else "zeros" if not any(got) else got.hex()
    more = f"; also different: {', '.join(f'PCR{index}' for index in others)}" if others else ""
    return f"{shown(entry.name)}: PCR{first}{key} is {text}, expected {required[first].hex()}{more}"
