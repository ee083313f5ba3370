"""The guide to attestation: its example runs against the stack, what it says of commands, pages and keys is so."""

from __future__ import annotations

import io
import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation.evidence import CMW, MOST_REGISTERED
from nitroproxy.attestation.policy import LONGEST_AGE
from nitroproxy.attestation.policy_file import policy_from
from nitroproxy.commands.main import build_parser
from nitroproxy.config.jsonc import read
from nitroproxy.config.load import load
from nitroproxy.tls.attested import AttestedAgent
from tests.test_chain_attested import CANARY_DOWN, AttestedChainCase

_GUIDE = (Path(__file__).parent.parent / "docs" / "trust.md").read_text("utf-8")
reactor: Any = global_reactor


def blocks(language: str = "") -> list[str]:
    """The guide's code blocks in that language."""
    parts = re.split(r"^```(\w*)\n", _GUIDE, flags=re.MULTILINE)
    # Text and fences alternate; every second fence opens a block, with its language.
    return [text for fence, text in zip(parts[1::4], parts[2::4], strict=False) if fence == language]


class GuideTests(SynchronousTestCase):
    """What the guide names."""

    def test_commands(self) -> None:
        """Each command line of ours is one."""
        lines = [line for block in blocks() for line in block.splitlines() if line.startswith("nitroproxy ")]
        self.assertEqual(len(lines), 2)
        for line in lines:
            build_parser().parse_args(line.split()[1:])

    def test_configuration(self) -> None:
        """Each part of a configuration is valid."""
        parts = [block for block in blocks() if block.startswith('"')]
        self.assertEqual(len(parts), 2)
        for part in parts:
            path = Path(self.mktemp())
            path.write_text("{" + part + "}")
            load(str(path), environ={})

    def test_policy(self) -> None:
        """The policy is one, once its values are filled in."""
        [text] = [block for block in blocks() if '"accept"' in block]
        path = Path(self.mktemp())
        path.write_text(text.replace("…96 hexadecimal digits…", "ab" * 48).replace('"…"', f'"{"cd" * 48}"'))
        self.assertEqual(policy_from(read(str(path))).entries[0].name, "v1.4")

    def test_numbers(self) -> None:
        """Numbers are the code's."""
        self.assertIn(f"up to {MOST_REGISTERED} bytes", _GUIDE)
        self.assertIn(f"at most {LONGEST_AGE:,}", _GUIDE)
        self.assertIn(CMW.dotted_string, _GUIDE)


class ExampleTests(AttestedChainCase):
    """The example, against the running stack."""

    async def run_example(self, policy: dict[str, Any]) -> str:
        """What it prints."""
        path = Path(self.mktemp())
        path.write_text(json.dumps(policy))
        [source] = blocks("python")
        names: dict[str, Any] = {"__name__": "example"}
        exec(source, names)  # our own guide
        # The only change: the root of the test's module in place of AWS's, and no connections left behind.
        names["AttestedAgent"] = partial(AttestedAgent, roots=self.nsm.chain.roots, persistent=False)
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        await names["main"](reactor, self.outside_url(), str(path))
        return output.getvalue()

    async def test_example(self) -> None:
        """It is answered by the right image, and sends nothing to another."""
        [entry] = self.nsm.policy.entries
        pcrs = {str(index): value.hex() for index, value in entry.pcrs.items()}
        accept = {"name": "v1.4", "pcrs": pcrs}
        said = await self.run_example({"accept": [accept]})
        self.assertEqual(said, f"200 {CANARY_DOWN + b' for the enclave alone'!r}\n")
        other = {"name": "other", "pcrs": {**pcrs, "2": "ab" * 48}}
        said = await self.run_example({"accept": [other]})
        self.assertTrue(said.startswith("refused, nothing was sent: policy: no entry matches"), said)
        self.assertEqual(len(self.application.heard), 1)
