"""Temporary credentials, in the forms in which AWS gives them. Pure.

The metadata service has more fields than the container form that SDKs read from a URL
(``AWS_CONTAINER_CREDENTIALS_FULL_URI``). Whoever reads one of them trusts the sender with nothing else: fields are
bounded, and only what is known is passed on, written anew.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

#: The most bytes of a document. Session tokens have about 1,300.
LONGEST_DOCUMENT: Final = 16384

_ACCESS_KEY_ID: Final = re.compile(r"[0-9A-Za-z_]{16,128}")
_VISIBLE: Final = re.compile(r"[!-~]{1,8192}")
#: RFC 3339, in UTC, as both forms have it.
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z")


class CredentialsUnavailable(Exception):
    """There are no credentials; the message says why, for a person, and holds no part of any."""


@dataclass(frozen=True, repr=False, slots=True)
class Credentials:
    """What a request is signed with until it expires. Has no text form, so that no log can hold it.

    :ivar expires_at: in seconds since the epoch.
    """

    access_key_id: str
    secret_access_key: str
    token: str
    expiration: str
    expires_at: float

    def to_json(self) -> bytes:
        """The container form."""
        return json.dumps(
            {
                "AccessKeyId": self.access_key_id,
                "SecretAccessKey": self.secret_access_key,
                "Token": self.token,
                "Expiration": self.expiration,
            }
        ).encode("ascii")


def read_container(body: bytes) -> Credentials:
    """The credentials in the container form.

    :raises CredentialsUnavailable: if *body* is something else.
    """
    return _read(_fields(body))


def read_metadata(body: bytes) -> Credentials:
    """The credentials that the metadata service answers.

    :raises CredentialsUnavailable: if *body* is something else, or says that there are none.
    """
    fields = _fields(body)
    code = fields.get("Code")
    if code != "Success":
        shown = code if isinstance(code, str) and re.fullmatch(r"[0-9A-Za-z]{1,64}", code) else "no code"
        raise CredentialsUnavailable(f"the metadata service has no credentials of the role: {shown}")
    return _read(fields)


def _fields(body: bytes) -> dict[str, object]:
    try:
        if len(body) <= LONGEST_DOCUMENT:
            return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    raise CredentialsUnavailable("the answer is no credentials document")


def _read(fields: dict[str, object]) -> Credentials:
    expiration = _text(fields, "Expiration", _TIME)
    try:
        expires_at = datetime.fromisoformat(expiration).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise CredentialsUnavailable("the field Expiration of the credentials is not usable") from None
    return Credentials(
        _text(fields, "AccessKeyId", _ACCESS_KEY_ID),
        _text(fields, "SecretAccessKey", _VISIBLE),
        _text(fields, "Token", _VISIBLE),
        expiration,
        expires_at,
    )


def _text(fields: dict[str, object], name: str, form: re.Pattern[str]) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise CredentialsUnavailable(f"the field {name} of the credentials is not usable")
    return value
