"""The fuzzer itself: it finds the defects that it is for, and what it found before stays fixed."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.enclave.credentials import CredentialsPage
from nitroproxy.errors import Kind, ProxyError
from nitroproxy.preface.socks5 import Handshake
from tests import fuzz
from tests.fuzz import Finding


class FuzzTests(SynchronousTestCase):
    """A short run, past findings, and defects that it must see."""

    def test_short_run(self) -> None:
        """Every target gets inputs, and nothing is found."""
        counts = fuzz.run(2.0, 1)
        self.assertEqual(set(counts), set(fuzz.TARGETS))
        self.assertGreater(min(counts.values()), 0)

    def test_past_findings(self) -> None:
        """Inputs whose reading depended on how the bytes were cut, or that waited for more bytes in vain."""
        for examine, data in (
            (fuzz.fuzz_responses, b"\r\n\r\n"),
            (fuzz.fuzz_requests, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello"),
        ):
            for seed in range(5):
                examine(random.Random(seed), data)

    def test_disagreement_is_found(self) -> None:
        """A request that h11 reads differently is a finding: the method, a field, the body."""
        data = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        [mine] = fuzz.requests_in([data])
        fuzz.agrees([mine], data)
        for position, wrong in enumerate((b"PUT", b"/x", (), b"h!")):
            changed = [*mine]
            changed[position] = wrong
            self.assertRaises(Finding, fuzz.agrees, [changed], data)

    def test_cut_preface_is_found(self) -> None:
        """A reader that needs its first bytes together is a finding."""
        data = b"\x05\x01\x00\x05\x01\x00\x03\x0csite.example\x01\xbbrest"
        fuzz.fuzz_prefaces(random.Random(1), data)

        def hasty(handshake: Handshake) -> bool:
            if handshake.buffered < 3:
                raise ProxyError(Kind.MALFORMED_REQUEST, "too short")
            return greeting(handshake)

        greeting = Handshake._read_greeting
        self.patch(Handshake, "_read_greeting", hasty)
        self.assertRaises(Finding, fuzz.fuzz_prefaces, random.Random(1), data)

    def test_credentials_are_found(self) -> None:
        """A page that asks the host without the token is a finding."""
        data = b"GET /credentials HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        fuzz.fuzz_credentials(random.Random(1), data)
        self.patch(CredentialsPage, "_check_token", lambda page, request: None)
        self.assertRaises(Finding, fuzz.fuzz_credentials, random.Random(1), data)
