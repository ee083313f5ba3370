"""What questions of the DNS are answered: `nitroproxy.transparent.answers`."""

from __future__ import annotations

from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.policy import Policy
from nitroproxy.transparent.answers import AAAA, A, Answers, Code, Outcome
from nitroproxy.transparent.names import NameTable

MX, TXT, SRV, HTTPS = 15, 16, 33, 65


class AnswersTests(SynchronousTestCase):
    """With a policy, and a machine called box."""

    def setUp(self) -> None:
        self.table = NameTable(self.mktemp(), most=3)
        self.addCleanup(self.table.close)
        policy = Policy(["*.example:443", "db.example:5432", "**.deep.example:*", "intern:80"], ["bad.example:*"])
        self.answers = Answers(self.table, policy, lambda: "Box")

    def ask(self, name: str, kind: int = A) -> tuple[Code, str, Outcome]:
        """Code, address and outcome."""
        answer = self.answers.answer(name.encode(), kind)
        return answer.code, str(ip_address(answer.packed)) if answer.packed else "", answer.outcome

    def test_allowed(self) -> None:
        """An allowed name has one address of each family, whatever its spelling."""
        self.assertEqual(self.ask("db.example"), (Code.NOERROR, "198.19.0.0", Outcome.ANSWERED))
        self.assertEqual(self.ask("a.example"), (Code.NOERROR, "198.19.0.1", Outcome.ANSWERED))
        for name in ("DB.example", "db.example.", "Db.Example"):
            self.assertEqual(self.ask(name)[1], "198.19.0.0", name)
        self.assertEqual(self.ask("DB.EXAMPLE", AAAA)[1], "fd00:6e69:7472:6f::c613:0")

    def test_denied(self) -> None:
        """A denied name does not exist, for every type, gets no number, and the reason names the rule."""
        for name in ("bad.example", "other.test", "example", "a.b.example"):
            for kind in (A, AAAA, MX, HTTPS, 255):
                self.assertEqual(self.ask(name, kind), (Code.NXDOMAIN, "", Outcome.DENIED), name)
        self.assertEqual(self.table.count(), 0)
        self.assertIn("'bad.example:*' of egress.deny", self.answers.answer(b"bad.example", A).detail)
        self.assertIn("matches no rule of egress.allow", self.answers.answer(b"other.test", A).detail)

    def test_no_such_type(self) -> None:
        """An allowed name has no records but addresses, which is no error, and costs no number."""
        for kind in (MX, TXT, SRV, HTTPS, 255, 0):
            self.assertEqual(self.ask("db.example", kind), (Code.NOERROR, "", Outcome.NO_SUCH_TYPE))
        self.assertEqual(self.table.count(), 0)

    def test_local(self) -> None:
        """localhost and what is below it, and this machine's own name, need no policy and no number."""
        for name in ("localhost", "LOCALHOST", "a.localhost"):
            self.assertEqual((self.ask(name)[1], self.ask(name, AAAA)[1]), ("127.0.0.1", "::1"))
        self.assertEqual((self.ask("box")[1], self.ask("BOX", AAAA)[1]), ("198.18.0.1", "fd00:6e69:7472:6f::1"))
        self.assertEqual(self.ask("box", MX)[::2], (Code.NOERROR, Outcome.NO_SUCH_TYPE))
        self.assertEqual(self.table.count(), 0)

    def test_single_labels(self) -> None:
        """One label exists only if a rule names it; a wildcard does not."""
        self.assertEqual(self.ask("intern")[0], Code.NOERROR)
        everything = Policy(["*:443"], [])
        self.answers.use(everything)
        self.assertEqual(self.ask("wpad"), (Code.NXDOMAIN, "", Outcome.DENIED))
        self.assertEqual(self.ask("a.example")[0], Code.NOERROR)

    def test_policy_replaced(self) -> None:
        """A new policy counts from the next question on; an address that was given out stays the name's."""
        before = self.ask("a.example")
        self.answers.use(Policy([], []))
        self.assertEqual(self.ask("a.example")[0], Code.NXDOMAIN)
        self.answers.use(Policy(["*:443"], []))
        self.assertEqual(self.ask("a.example"), before)

    def test_invalid(self) -> None:
        """What is no name a target could have does not exist: odd spellings of addresses, bad labels, wrong IDNA."""
        self.answers.use(Policy(["*:*"], []))
        names = [b"127.1", b"0x7f.1", b"2130706433", b"a b.example", b"-a.example", b"xn--0.example", b"", b"a..b"]
        for name in [*names, b"x" * 64 + b".example", b"\xff.example", b".".join([b"x" * 60] * 5)]:
            answer = self.answers.answer(name, A)
            self.assertEqual((answer.code, answer.outcome), (Code.NXDOMAIN, Outcome.INVALID), name)
            self.assertTrue(answer.detail)
        self.assertEqual(self.ask("192.0.2.1"), (Code.NXDOMAIN, "", Outcome.DENIED))
        self.assertEqual(self.table.count(), 0)

    def test_no_more_numbers(self) -> None:
        """With all numbers taken a new name is SERVFAIL, the others are answered as ever."""
        for name in ("a.example", "b.example", "c.example"):
            self.ask(name)
        self.assertEqual(self.ask("d.example"), (Code.SERVFAIL, "", Outcome.NO_MORE_NUMBERS))
        self.assertEqual(self.ask("b.example")[1], "198.19.0.1")
        self.assertEqual(self.ask("bad.example")[2], Outcome.DENIED)

    def test_no_file(self) -> None:
        """When the file cannot be written the answer is SERVFAIL, and says so."""

        def fails(name: str) -> int:
            raise OSError(28, "No space left on device")

        self.patch(self.table, "number_of", fails)
        answer = self.answers.answer(b"a.example", A)
        self.assertEqual((answer.code, answer.outcome), (Code.SERVFAIL, Outcome.FAILED))
        self.assertIn("No space left on device", answer.detail)
