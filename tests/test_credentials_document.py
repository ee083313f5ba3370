"""Tests of `nitroproxy.credentials.document`."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.credentials.document import (
    LONGEST_DOCUMENT,
    CredentialsUnavailable,
    read_container,
    read_metadata,
)
from tests.imds import ROLE, metadata_document


def container(**changes: Any) -> bytes:
    """Our document in the container form, with changes; None leaves a field out."""
    found = json.loads(metadata_document())
    fields = {name: found[name] for name in ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")} | changes
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


class DocumentTests(SynchronousTestCase):
    """What is read, and what is passed on."""

    def test_both_forms(self) -> None:
        """Both forms are read; what is written is the container form with nothing else in it."""
        first = read_metadata(metadata_document())
        second = read_container(container(RoleArn="arn:aws:iam::1:role/x", Extra=[1, {}]))
        self.assertEqual(first, second)
        self.assertEqual(read_container(first.to_json()), first)
        self.assertEqual(set(json.loads(first.to_json())), {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"})

    def test_expiration(self) -> None:
        """The time is in UTC, with parts of seconds or without."""
        self.assertEqual(read_container(container(Expiration="2026-11-28T06:00:00Z")).expires_at, 1795845600.0)
        self.assertEqual(read_container(container(Expiration="2026-11-28T06:00:00.25Z")).expires_at, 1795845600.25)

    def test_no_text_form(self) -> None:
        """No part of them is in their repr, nor in an error's message."""
        text = repr(read_container(container()))
        for part in json.loads(container()).values():
            self.assertNotIn(part, text)
        error = self.assertRaises(CredentialsUnavailable, read_container, container(Expiration="SECRET"))
        self.assertNotIn("SECRET", str(error))

    def test_wrong_fields(self) -> None:
        """A field that is missing, of another type, too long, or holds what could end a header line is refused."""
        wrong: tuple[Any, ...] = (None, 1, True, [], {}, "", "a b", "a\r\nb", "ä" * 20, "x" * 8193, "a\0b" * 8)
        for name in ("AccessKeyId", "SecretAccessKey", "Token", "Expiration"):
            for value in wrong:
                with self.assertRaises(CredentialsUnavailable, msg=f"{name}: {value!r}") as caught:
                    read_container(container(**{name: value}))
                self.assertIn(name, str(caught.exception))

    def test_wrong_times(self) -> None:
        """What looks like a time and is none is refused, and so is one in another zone."""
        for text in (
            *("2026-13-28T06:00:00Z", "2026-02-30T06:00:00Z", "2026-11-28T24:00:01Z", "0000-01-01T00:00:00Z"),
            *("2026-11-28T06:00:00+00:00", "2026-11-28 06:00:00Z", "2026-11-28T06:00:00", "1795845600"),
            "٢٠٢٦-11-28T06:00:00Z",
        ):
            with self.assertRaises(CredentialsUnavailable, msg=text):
                read_container(container(Expiration=text))

    def test_codes(self) -> None:
        """The metadata service says itself when it has none; its word is shown only if it is one."""
        for code, shown in (
            ("AssumeRoleUnauthorizedAccess", "AssumeRoleUnauthorizedAccess"),
            ("a b", "no code"),
            (1, "no code"),
            (None, "no code"),
        ):
            error = self.assertRaises(CredentialsUnavailable, read_metadata, metadata_document(Code=code))
            self.assertEqual(str(error), f"the metadata service has no credentials of the role: {shown}")

    def test_no_document(self) -> None:
        """Anything else is refused, and what is too long is not read."""
        padded = container(Padding="x" * LONGEST_DOCUMENT)
        for body in (b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff", ROLE.encode(), b"[" * 10000, padded):
            self.assertRaises(CredentialsUnavailable, read_container, body)
            self.assertRaises(CredentialsUnavailable, read_metadata, body)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: container(Token=text)))
    def test_anything(self, body: bytes) -> None:
        """Any bytes: credentials that can be written and read again, or the one exception."""
        try:
            found = read_container(body)
        except CredentialsUnavailable:
            return
        self.assertEqual(read_container(found.to_json()), found)
