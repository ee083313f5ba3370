"""Tests of `nitroproxy.credentials.imds`, with a metadata service that answers what the test says."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.credentials.document import Credentials, CredentialsUnavailable
from nitroproxy.credentials.imds import MetadataService
from nitroproxy.errors import Kind, ProxyError
from tests.imds import ROLE, metadata_document
from tests.wire import OneHop, split_head

_ROLE_LINE = b"GET /latest/meta-data/iam/security-credentials/" + ROLE.encode("ascii") + b" HTTP/1.1"


class ImdsTests(SynchronousTestCase):
    """The two requests, and what becomes of their answers."""

    def setUp(self) -> None:
        self.hop = OneHop()
        seconds = self.hop.deadlines.seconds
        self.service = MetadataService(self.hop.pool, b"169.254.169.254", ROLE, self.hop.deadlines, seconds)

    def ask(self) -> Deferred[Credentials]:
        return Deferred.fromCoroutine(self.service.credentials())

    def answer(self, status: int, body: bytes) -> tuple[bytes, dict[bytes, bytes]]:
        """Answer the oldest connection's request; what it was."""
        wire = self.hop.endpoint.accept()
        line, fields, _ = split_head(wire.take())
        wire.receive(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        return line, fields

    def problem(self, asking: Deferred[Credentials]) -> str:
        return str(self.failureResultOf(asking, CredentialsUnavailable).value)

    def test_credentials(self) -> None:
        """A session token first, by PUT with its lifetime; then the role, with the token."""
        asking = self.ask()
        line, fields = self.answer(200, b"AQAtoken==")
        self.assertEqual(line, b"PUT /latest/api/token HTTP/1.1")
        self.assertEqual(fields[b"x-aws-ec2-metadata-token-ttl-seconds"], b"21600")
        self.assertEqual((fields[b"content-length"], fields[b"host"]), (b"0", b"169.254.169.254"))
        line, fields = self.answer(200, metadata_document())
        self.assertEqual((line, fields[b"x-aws-ec2-metadata-token"]), (_ROLE_LINE, b"AQAtoken=="))
        self.assertNotIn(b"x-forwarded-for", fields)
        self.assertEqual(self.successResultOf(asking).access_key_id, "ASIAEXAMPLEEXAMPLE00")

    def test_token_kept(self) -> None:
        """The token serves later questions, until it is near its end."""
        self.test_credentials()
        self.ask()
        self.assertEqual(self.answer(200, metadata_document())[0], _ROLE_LINE)
        self.hop.clock.advance(20001.0)
        self.ask()
        self.assertEqual(self.answer(200, b"token")[0], b"PUT /latest/api/token HTTP/1.1")

    def test_token_ended(self) -> None:
        """A token that the service no longer knows is replaced, once."""
        self.test_credentials()
        asking = self.ask()
        self.answer(401, b"")
        self.answer(200, b"new")
        self.assertEqual(self.answer(200, metadata_document())[1][b"x-aws-ec2-metadata-token"], b"new")
        self.successResultOf(asking)
        asking = self.ask()
        self.answer(401, b"")
        self.answer(200, b"newer")
        self.answer(401, b"")
        self.assertEqual(self.problem(asking), "the metadata service answered 401")

    def test_bad_tokens(self) -> None:
        """What could not be a field's value is no token."""
        for token in (b"", b"a b", b"a\r\nX: y", b"x" * 1025, b"\xff"):
            asking = self.ask()
            self.answer(200, token)
            self.assertEqual(self.problem(asking), "the metadata service gave no session token (200)")
            self.assertEqual(self.hop.endpoint.waiting, [])

    def test_refusals(self) -> None:
        """Statuses are told with what to do."""
        for first, second, words in (
            (403, 0, "switched off"),
            (500, 0, "no session token (500)"),
            (200, 404, "no role of that name"),
            (200, 403, "switched off"),
            (200, 503, "answered 503"),
            (200, 302, "answered 302"),
        ):
            self.setUp()
            asking = self.ask()
            self.answer(first, b"token")
            if second:
                self.answer(second, b"")
            self.assertIn(words, self.problem(asking))

    def test_no_answer(self) -> None:
        """Both requests together have less time than an SDK waits."""
        asking = self.ask()
        self.hop.pass_time(1.0)
        self.answer(200, b"token")
        self.hop.pass_time(0.5)
        self.assertIn("does not answer", self.problem(asking))

    def test_unreachable(self) -> None:
        """No route to it, as where the unit denies the address."""
        asking = self.ask()
        self.hop.endpoint.refuse(ProxyError(Kind.CREDENTIALS_UNAVAILABLE, "Operation not permitted"))
        self.assertIn("does not answer: Operation not permitted", self.problem(asking))

    def test_too_long(self) -> None:
        """More bytes than credentials can have are not read."""
        asking = self.ask()
        self.answer(200, b"token")
        self.answer(200, b"x" * 20000)
        self.assertIn("does not answer", self.problem(asking))
