"""`Refused`: the only exception with which verifying a document fails. Knows nothing of documents."""

from __future__ import annotations

from typing import Final, Literal

#: The rules, roughly in the order of the checks. ``nonce``: its length or its value. ``validity``: a certificate was
#: not valid when the document was signed, or has ended since. ``extension`` and ``binding`` are of a TLS certificate
#: that carries a document: it carries none, or one that is not for its key. ``internal``: the verifier itself failed.
Rule = Literal[
    "size",
    "cbor",
    "envelope",
    "payload",
    "fields",
    "module_id",
    "digest",
    "timestamp",
    "pcrs",
    "cabundle",
    "certificate",
    "public_key",
    "user_data",
    "nonce",
    "root",
    "chain",
    "constraints",
    "usage",
    "validity",
    "signature",
    "age",
    "debug",
    "policy",
    "extension",
    "binding",
    "internal",
]

#: The longest detail, in characters. Parts of it may come from the sender of the document.
_DETAIL_CHARACTERS: Final = 512


class Refused(Exception):
    """A document is not accepted.

    :ivar rule: the first rule that it breaks.
    :ivar detail: what was wrong, for a person: printable ASCII, at most 512 characters.
    """

    def __init__(self, rule: Rule, detail: str) -> None:
        detail = printable(detail)
        if len(detail) > _DETAIL_CHARACTERS:
            detail = f"{detail[: _DETAIL_CHARACTERS - 3]}..."
        super().__init__(rule, detail)
        self.rule: Rule = rule
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.rule}: {self.detail}"


def printable(text: str) -> str:
    """*text* with every character but the printable ones of ASCII escaped, so that it is safe on a terminal."""
    return "".join(
        character if " " <= character <= "~" else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text
    )
