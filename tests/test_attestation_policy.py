"""Tests of `nitroproxy.attestation.policy`."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation.policy import Entry, Policy, PolicyError, is_debug, measure, shown
from nitroproxy.attestation.refusal import Refused
from tests.attestation.real import load

ROLE = "arn:aws:iam::123456789012:role/path/name"
INSTANCE = "i-0123456789abcdef0"
IMAGE = {0: b"\1" * 48, 1: b"\2" * 48, 2: b"\3" * 48}
ZEROS = bytes(48)


class EntryTests(SynchronousTestCase):
    """Which entries there can be."""

    def problems(self, **changes: Any) -> list[str]:
        """What is wrong with an entry that is good but for *changes*."""
        good: dict[str, Any] = {"name": "v1", "pcrs": IMAGE, "role": ROLE}
        Entry(**good)
        return list(self.assertRaises(PolicyError, Entry, **{**good, **changes}).problems)

    def test_good(self) -> None:
        """An image is given by its measurements or its signer, on a role, an instance, both, or public."""
        for pcrs in (IMAGE, {8: b"\1" * 48}, {**IMAGE, 8: ZEROS}, {**IMAGE, 16: ZEROS, 31: b"x" * 48}):
            for role, instance in ((ROLE, None), (None, INSTANCE), (ROLE, "i-01234567")):
                Entry("v1", pcrs, role, instance)
            Entry("v1", pcrs, public=True)
        Entry("v1", {**IMAGE, 3: b"\4" * 48})
        Entry("v1", {**IMAGE, 4: b"\5" * 48})
        Entry("v1", IMAGE, "arn:aws-us-gov:iam::123456789012:role/x")

    def test_required(self) -> None:
        """The role is hashed into PCR3 and the instance into PCR4, after 48 zeros (SHA-384)."""
        required = Entry("v1", IMAGE, ROLE, INSTANCE).required()
        self.assertEqual(required[3], hashlib.sha384(bytes(48) + ROLE.encode()).digest())
        self.assertEqual(required[4], hashlib.sha384(bytes(48) + INSTANCE.encode()).digest())
        self.assertEqual({index: required[index] for index in IMAGE}, IMAGE)
        self.assertEqual(set(Entry("v1", IMAGE, public=True).required()), {0, 1, 2})

    def test_instances_of_real_documents(self) -> None:
        """PCR4 of every stored document of AWS's NSMs is what is computed from the instance's id in its module id."""
        documents = [real for real in load() if real.genuine]
        for real in documents:
            instance = real.record["module_id"].partition("-enc")[0]
            self.assertEqual(real.pcrs[4], measure(instance.encode()), real.name)
        self.assertGreater(len(documents), 15)

    def test_not_bound(self) -> None:
        """An entry must bind the image to a role or instance, or say that it is public; the message says how."""
        for pcrs in (IMAGE, {**IMAGE, 3: ZEROS, 4: ZEROS}):
            [problem] = self.problems(role=None, pcrs=pcrs)
            self.assertTrue(problem.startswith("role: missing; "), problem)
            for words in ("arn:aws:iam::123456789012:role/name", "i-0123456789abcdef0", '"public": true'):
                self.assertIn(words, problem)

    def test_role_to_fill_in(self) -> None:
        """An empty role, as `nitroproxy image` writes it, is refused with what to fill in."""
        [problem] = self.problems(role="")
        self.assertIn("got ''; fill in one of: \"role\" (", problem)
        self.assertIn('"public": true', problem)

    def test_not_a_role(self) -> None:
        """ARNs of other kinds than a role's are refused: the NSM never measures them."""
        for role in (
            "arn:aws:iam::123456789012:instance-profile/name",
            "arn:aws:sts::123456789012:assumed-role/name/session",
            "arn:aws:iam::12345:role/name",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role/a b",
            "name",
            f"{ROLE}\n",
            f" {ROLE}",
        ):
            [problem] = self.problems(role=role)
            self.assertTrue(problem.startswith("role: expected the ARN of an IAM role"), problem)

    def test_not_an_instance(self) -> None:
        """An instance's id is i- and 8 or 17 hexadecimal digits."""
        for instance in (
            "",
            "i-",
            "i-0123",
            "i-0123456789abcdef0-enc0",
            "I-01234567",
            "i-0123456789ABCDEF0",
            "i-01234567\n",
        ):
            [problem] = self.problems(instance=instance)
            self.assertTrue(problem.startswith("instance: expected an EC2 instance id"), problem)

    def test_both(self) -> None:
        """Contradictions are refused: public with a role or instance, a PCR given in two ways."""
        self.assertEqual(len(self.problems(public=True)), 1)
        self.assertEqual(len(self.problems(public=True, role=None, pcrs={**IMAGE, 4: b"\5" * 48})), 1)
        [problem] = self.problems(pcrs={**IMAGE, 3: b"\4" * 48})
        self.assertTrue(problem.startswith("pcrs.3: expected either this or role"), problem)
        [problem] = self.problems(pcrs={**IMAGE, 4: b"\4" * 48}, instance=INSTANCE)
        self.assertTrue(problem.startswith("pcrs.4: expected either this or instance"), problem)

    def test_no_image(self) -> None:
        """An entry without an image is refused; PCR0 alone does not tell one."""
        for pcrs, got in (
            ({}, "none"),
            ({0: IMAGE[0]}, "PCR0"),
            ({0: IMAGE[0], 1: IMAGE[1], 5: ZEROS}, "PCR0, PCR1, PCR5"),
        ):
            self.assertEqual(self.problems(pcrs=pcrs), [f"pcrs: expected PCR0, 1 and 2, or PCR8, got {got}"])

    def test_zeros(self) -> None:
        """Zeros name no image: PCR8 of every unsigned one is zeros, and so are the first three in debug mode only."""
        [problem] = self.problems(pcrs={8: ZEROS})
        self.assertIn("which every unsigned image has", problem)
        [problem] = self.problems(pcrs={**IMAGE, 1: ZEROS})
        self.assertEqual(problem, "pcrs.1: expected the measurement of an image, got zeros")

    def test_malformed(self) -> None:
        """Unprintable names, unknown indices and measurements of a wrong length are all reported."""
        problems = self.problems(name="a\n", pcrs={**IMAGE, 32: ZEROS, 0: b"\1" * 32})
        self.assertEqual([problem.partition(":")[0] for problem in problems], ["name", "pcrs.0", "pcrs.32"])
        for name in ("", "x" * 129, "\u202e"):
            self.assertEqual(len(self.problems(name=name)), 1)


class PolicyTests(SynchronousTestCase):
    """Which policies there can be."""

    def problems(self, *arguments: Any, **keywords: Any) -> list[str]:
        """What is wrong with a policy."""
        return list(self.assertRaises(PolicyError, Policy, *arguments, **keywords).problems)

    def test_entries(self) -> None:
        """A policy that accepts nothing is a mistake; so are too many entries and a name that comes twice."""
        entry = Entry("v1", IMAGE, ROLE)
        self.assertEqual(self.problems(()), ["accept: expected 1 to 256 entries, got none"])
        many = tuple(Entry(f"v{number}", IMAGE, ROLE) for number in range(257))
        self.assertEqual(self.problems(many), ["accept: expected 1 to 256 entries, got more"])
        Policy(many[:256])
        problem = "accept[2].name: expected a name that no other entry has, got 'v1'"
        self.assertEqual(self.problems((entry, many[2], entry)), [problem])

    def test_debug(self) -> None:
        """An entry for debug enclaves says what it accepts only together with allow_debug."""
        entries = (Entry("debug", dict.fromkeys((0, 1, 2), ZEROS), public=True),)
        [problem] = self.problems(entries)
        self.assertTrue(problem.startswith("accept[0].pcrs: "), problem)
        self.assertIn('"allow_debug": true', problem)
        Policy(entries, allow_debug=True)

    def test_age(self) -> None:
        """An age is bounded by what a certificate lives; an hour is the default."""
        entries = (Entry("v1", IMAGE, ROLE),)
        self.assertEqual(Policy(entries).max_age, timedelta(hours=1))
        for seconds in (0, -1, 10801):
            problem = f"max_age: expected seconds, 1 to 10800, got {seconds}"
            self.assertEqual(self.problems(entries, timedelta(seconds=seconds)), [problem])
        Policy(entries, timedelta(seconds=10800))
        Policy(entries, None)


class MatchTests(SynchronousTestCase):
    """Which measurements match."""

    def setUp(self) -> None:
        self.policy = Policy((Entry("v1", IMAGE, ROLE), Entry("v2", {**IMAGE, 0: b"\7" * 48}, instance=INSTANCE)))
        self.pcrs = {**IMAGE, 3: measure(ROLE.encode()), 4: measure(INSTANCE.encode()), 5: ZEROS}

    def refusal(self, pcrs: dict[int, bytes], policy: Policy | None = None) -> Refused:
        """How these measurements are refused."""
        refused: Refused = self.assertRaises(Refused, (policy or self.policy).match, pcrs)
        return refused

    def test_any_entry(self) -> None:
        """One entry is enough, and more measurements than it names do no harm."""
        self.assertEqual(self.policy.match(self.pcrs).name, "v1")
        self.assertEqual(self.policy.match({**self.pcrs, 0: b"\7" * 48}).name, "v2")

    def test_each_measurement(self) -> None:
        """Each measurement of an entry must be there and equal; entries are not mixed."""
        for index in (0, 1, 2, 3):
            for value in (ZEROS, self.pcrs[index][:-1], self.pcrs[index] + b"\0", b""):
                self.assertEqual(self.refusal({**self.pcrs, index: value}).rule, "policy")
            self.assertEqual(self.refusal({i: v for i, v in self.pcrs.items() if i != index}).rule, "policy")
        # The image of one entry on the instance of the other.
        self.assertEqual(self.refusal({**self.pcrs, 3: ZEROS}).rule, "policy")

    def test_closest_is_told(self) -> None:
        """The message names the closest entry, the document's value and the expected one."""
        detail = self.refusal({**self.pcrs, 3: ZEROS}).detail
        expected = f"'v1': PCR3 (the role) is zeros, expected {self.pcrs[3].hex()}"
        self.assertEqual(detail, f"no entry matches; the closest is {expected}")
        detail = self.refusal({**self.pcrs, 0: b"\7" * 48, 1: b"\x08" * 48, 2: b"", 3: ZEROS}).detail
        expected = f"'v2': PCR1 is {'08' * 48}, expected {'02' * 48}; also different: PCR2"
        self.assertEqual(detail, f"no entry matches; the closest is {expected}")
        detail = self.refusal({**IMAGE, 4: ZEROS}).detail
        self.assertIn("'v1': PCR3 (the role) is absent, expected", detail)

    def test_debug(self) -> None:
        """Debug mode is refused for its own reason, whatever the entries say, unless it is allowed."""
        zeros = {**self.pcrs, 0: ZEROS, 1: ZEROS, 2: ZEROS}
        self.assertEqual(self.refusal(zeros).rule, "debug")
        signer = Policy((Entry("signer", {8: b"\1" * 48}, public=True),))
        self.assertEqual(self.refusal({**zeros, 8: b"\1" * 48}, signer).rule, "debug")
        allowed = Policy((*self.policy.entries, Entry("debug", {i: ZEROS for i in IMAGE}, ROLE)), allow_debug=True)
        self.assertEqual(allowed.match(zeros).name, "debug")
        # Allowing debug mode does not make an image out of it.
        self.assertEqual(self.refusal(zeros, Policy(self.policy.entries, allow_debug=True)).rule, "policy")

    def test_is_debug(self) -> None:
        """Debug mode shows zeros in all of PCR0, 1 and 2."""
        self.assertTrue(is_debug({0: ZEROS, 1: ZEROS, 2: ZEROS, 3: b"\1" * 48}))
        self.assertFalse(is_debug({0: ZEROS, 1: ZEROS}))
        self.assertFalse(is_debug({0: ZEROS, 1: ZEROS, 2: bytes(47) + b"\1"}))


class ShownTests(SynchronousTestCase):
    """Values in messages."""

    def test_values(self) -> None:
        """Strings are quoted, other values are JSON; one line, at most 80 characters."""
        for value, text in (
            ("a\n", r"'a\n'"),
            (None, "null"),
            (True, "true"),
            (1.5, "1.5"),
            ("x" * 99, f"'{'x' * 76}..."),
        ):
            self.assertEqual(shown(value), text)
