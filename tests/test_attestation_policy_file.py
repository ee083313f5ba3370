"""Tests of `nitroproxy.attestation.policy_file`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation.policy import Policy, PolicyError
from nitroproxy.attestation.policy_file import load_policy, policy_from
from nitroproxy.config.jsonc import parse

ONE, TWO, THREE = ("01" * 48, "02" * 48, "03" * 48)
PCRS = f'{{"0": "{ONE}", "1": "{TWO}", "2": "{THREE}"}}'
ROLE = "arn:aws:iam::123456789012:role/name"
ENTRY = f'{{"name": "v1", "pcrs": {PCRS}, "role": "{ROLE}"}}'
#: What `nitro-cli describe-eif` and `nitro-cli build-enclave` print.
MEASUREMENTS = f'{{"HashAlgorithm": "Sha384 {{ ... }}", "PCR0": "{ONE}", "PCR1": "{TWO}", "PCR2": "{THREE}"}}'


def policy(text: str) -> Policy:
    """The policy that *text* describes."""
    return policy_from(parse(text))


class GoodTests(SynchronousTestCase):
    """What is read."""

    def test_all_keys(self) -> None:
        """Comments are allowed, hexadecimal digits may be capitals, and everything arrives."""
        found = policy(
            f'{{"accept": [{ENTRY}, // the second\n {{"name": "v2", "pcrs": {{"8": "{"AB" * 48}"}}, "instance": '
            '"i-01234567"},], "max_age": 60, "allow_debug": true}'
        )
        first, second = found.entries
        self.assertEqual((first.name, first.role, first.instance, first.public), ("v1", ROLE, None, False))
        self.assertEqual(first.pcrs, {0: b"\1" * 48, 1: b"\2" * 48, 2: b"\3" * 48})
        self.assertEqual((second.pcrs, second.instance), ({8: b"\xab" * 48}, "i-01234567"))
        self.assertEqual((found.max_age, found.allow_debug), (timedelta(minutes=1), True))

    def test_defaults(self) -> None:
        """Without more than entries the age is an hour, and debug mode is not accepted."""
        found = policy(f'{{"accept": [{ENTRY}]}}')
        self.assertEqual((found.max_age, found.allow_debug), (timedelta(hours=1), False))

    def test_measurements(self) -> None:
        """Measurements as nitro-cli prints them give the same as pcrs; the name of the hash is not looked at."""
        found = policy(f'{{"accept": [{{"name": "v1", "Measurements": {MEASUREMENTS}, "role": "{ROLE}"}}]}}')
        self.assertEqual(found.entries, policy(f'{{"accept": [{ENTRY}]}}').entries)
        signed = f'{MEASUREMENTS[:-1]}, "PCR8": "{TWO}"}}'
        [entry] = policy(f'{{"accept": [{{"name": "v1", "Measurements": {signed}, "public": true}}]}}').entries
        self.assertEqual(entry.pcrs[8], b"\2" * 48)

    def test_file(self) -> None:
        """It is read from a file."""
        path = self.mktemp()
        Path(path).write_text(f'// ours\n{{"accept": [{ENTRY}]}}\n', "utf-8")
        self.assertEqual(load_policy(path).entries[0].name, "v1")


class ProblemTests(SynchronousTestCase):
    """The errors of a file that cannot be used."""

    def problems(self, text: str) -> list[str]:
        """Everything that is wrong with *text*."""
        return list(self.assertRaises(PolicyError, policy, text).problems)

    def entry_problems(self, entry: str) -> list[str]:
        """Everything that is wrong with a policy of a good entry and *entry*, without the place."""
        found = self.problems(f'{{"accept": [{ENTRY}, {entry}]}}')
        for problem in found:
            self.assertTrue(problem.startswith("accept[1]"), problem)
        return [problem.removeprefix("accept[1].") for problem in found]

    def test_file_is_named(self) -> None:
        """Each problem names the file; a file that cannot be read is one problem."""
        path = self.mktemp()
        Path(path).write_text('{"accept": [], "max_age": 0}', "utf-8")
        problems = self.assertRaises(PolicyError, load_policy, path).problems
        self.assertEqual(len(problems), 2)
        for problem in problems:
            self.assertTrue(problem.endswith(f" (from {path})"), problem)
        Path(path).write_text('{"accept": ', "utf-8")
        [problem] = self.assertRaises(PolicyError, load_policy, path).problems
        self.assertEqual(problem, f"{path}:1:12: unexpected end of input")
        [problem] = self.assertRaises(PolicyError, load_policy, f"{path}-").problems
        self.assertIn("No such file", problem)

    def test_all_at_once(self) -> None:
        """All errors are reported at once, and none that only follows from another."""
        problems = self.problems(
            f"""{{
            "accept": [
              {{"name": 1, "pcrs": {{"0": "{ONE}", "1": "xyz", "2": "{THREE}"}}, "role": ""}},
              {{"pcrs": {{"0": "{ONE}"}}, "rol": "{ROLE}"}},
              "v1",
              {{"name": "a", "pcrs": {PCRS}, "public": "yes"}},
              {{"name": "a", "pcrs": {PCRS}, "role": 5}}
            ],
            "max_age": 3600.5, "roots": [], "allow_debug": 0
            }}"""
        )
        expected = [
            "roots: unknown key; expected one of: accept, max_age, allow_debug",
            "accept[0].name: expected a string, got 1",
            "accept[0].pcrs.1: expected 96 hexadecimal digits, got 'xyz'",
            "accept[0].role: expected the ARN of an IAM role",
            "accept[1].rol: unknown key; did you mean role?",
            "accept[1].name: missing; expected a text, for people",
            "accept[1].pcrs: expected PCR0, 1 and 2, or PCR8, got PCR0",
            "accept[1].role: missing; say where the image may run: ",
            "accept[2]: expected an object, got 'v1'",
            "accept[3].public: expected true or false, got 'yes'",
            "accept[4].role: expected a string, got 5",
            "max_age: expected seconds, an integer 1 to 10800, got 3600.5",
            "allow_debug: expected true or false, got 0",
            "accept[4].name: expected a name that no other entry has, got 'a'",
        ]
        self.assertEqual([problem[: len(text)] for problem, text in zip(problems, expected, strict=True)], expected)

    def test_no_error_from_another(self) -> None:
        """A switch that cannot be read is one error: what depends on it is not reported, either way it was meant."""
        zeros = PCRS.replace(ONE, "00" * 48).replace(TWO, "00" * 48).replace(THREE, "00" * 48)
        debug = f'{{"name": "v2", "pcrs": {zeros}, "public": true}}'
        [problem] = self.problems(f'{{"accept": [{debug}], "allow_debug": "yes"}}')
        self.assertTrue(problem.startswith("allow_debug: "), problem)
        for binding in ("", f', "role": "{ROLE}"', ', "instance": "i-01234567"'):
            [problem] = self.entry_problems(f'{{"name": "v2", "pcrs": {PCRS}, "public": "yes"{binding}}}')
            self.assertEqual(problem, "public: expected true or false, got 'yes'")
        [problem] = self.entry_problems(f'{{"name": "v2", "pcrs": {PCRS[:-1]}, "4": "{ONE}"}}, "public": "yes"}}')
        self.assertEqual(problem, "public: expected true or false, got 'yes'")

    def test_not_a_policy(self) -> None:
        """A value that is not an object, and an object without entries, have messages of their own."""
        for text in ("[]", "1", '"x"', "null"):
            self.assertTrue(self.problems(text)[0].startswith("policy: expected an object, got "), text)
            self.assertEqual(len(self.problems(text)), 1)
        self.assertEqual(self.problems("{}"), ["accept: missing; expected a list of entries"])
        self.assertEqual(self.problems('{"accept": {}}'), ["accept: expected a list of entries, got an object"])
        self.assertEqual(self.problems('{"accept": []}'), ["accept: expected 1 to 256 entries, got none"])
        self.assertEqual(self.problems('{"accept": null}'), ["accept: expected a list of entries, got null"])

    def test_age(self) -> None:
        """An age is an integer: true, which Python takes for 1, is none, nor is what JSON5 allows beside numbers."""
        for value in ("true", "null", '"3600"', "0", "-1", "10801", "1e3", "NaN", "Infinity", "[1]", str(10**30)):
            [problem] = self.problems(f'{{"accept": [{ENTRY}], "max_age": {value}}}')
            self.assertTrue(problem.startswith("max_age: expected seconds, an integer 1 to 10800, got "), problem)

    def test_nitro_cli_output(self) -> None:
        """For nitro-cli's output given as a policy the message says where it belongs."""
        problems = self.problems(f'{{"Measurements": {MEASUREMENTS}}}')
        self.assertEqual(problems[0].partition(";")[0], "Measurements: unknown key")
        self.assertIn('it belongs into an entry: {"accept": [{"name": "...", "Measurements": ...}]}', problems[0])

    def test_twice(self) -> None:
        """A key that comes twice is refused everywhere: the second one does not win."""
        for text in (
            f'{{"accept": [{ENTRY}], "max_age": 1, "max_age": 2}}',
            f'{{"accept": [{{"name": "v1", "pcrs": {PCRS}, "role": "{ROLE}", "role": "{ROLE}"}}]}}',
            f'{{"accept": [{{"name": "v1", "pcrs": {PCRS[:-1]}, "0": "{ONE}"}}, "role": "{ROLE}"}}]}}',
        ):
            [problem] = self.problems(text)
            self.assertTrue(problem.endswith(": given more than once"), problem)

    def test_pcrs(self) -> None:
        """Measurements are 96 hexadecimal digits at an index without zeros before it."""
        for value in (
            f'"{ONE[:-1]}"',
            f'"{ONE}0"',
            f'"0x{ONE[2:]}"',
            '""',
            "0",
            "null",
            f'["{ONE}"]',
            f'" {ONE[:-1]}"',
        ):
            [problem] = self.entry_problems(
                f'{{"name": "v2", "pcrs": {PCRS.replace(_quoted(ONE), value)}, "public": true}}'
            )
            self.assertTrue(problem.startswith("pcrs.0: expected 96 hexadecimal digits, got "), problem)
        for index in ("32", "-1", "00", "PCR0", "", "1.0", "²"):
            [problem] = self.entry_problems(
                f'{{"name": "v2", "pcrs": {PCRS[:-1]}, "{index}": "{ONE}"}}, "public": true}}'
            )
            self.assertTrue(problem.endswith('unknown key; expected "0" to "31"'), problem)
        [problem] = self.entry_problems('{"name": "v2", "pcrs": [], "public": true}')
        self.assertEqual(problem, "pcrs: expected an object, got a list")

    def test_names_in_measurements(self) -> None:
        """Errors in Measurements use nitro-cli's names."""
        wrong = MEASUREMENTS.replace(ONE, "00" * 48)
        [problem] = self.entry_problems(f'{{"name": "v2", "Measurements": {wrong}, "public": true}}')
        self.assertEqual(problem, "Measurements.PCR0: expected the measurement of an image, got zeros")
        [problem] = self.entry_problems('{"name": "v2", "Measurements": {}, "public": true}')
        self.assertTrue(problem.startswith("Measurements: expected PCR0, 1 and 2, or PCR8, got none"), problem)
        both = f'{{"name": "v2", "Measurements": {MEASUREMENTS}, "pcrs": {PCRS}, "public": true}}'
        self.assertEqual(self.entry_problems(both), ["Measurements: expected either this or pcrs, got both"])

    def test_hostile_names(self) -> None:
        """Hostile keys are escaped, so that the message stays on one line."""
        [problem] = self.problems(f'{{"accept": [{ENTRY}], "a\\n\\u001b": 1}}')
        self.assertTrue(problem.startswith("a\\n\\x1b: unknown key"), problem)

    def test_many_entries(self) -> None:
        """Entries beyond what is allowed are not looked at."""
        entries = [*(_named(number) for number in range(257)), "1"]
        [problem] = self.problems(f'{{"accept": [{", ".join(entries)}]}}')
        self.assertEqual(problem, "accept: expected 1 to 256 entries, got more")


def _quoted(text: str) -> str:
    return f'"{text}"'


def _named(number: int) -> str:
    return ENTRY.replace("v1", f"v{number}")
