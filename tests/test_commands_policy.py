"""Tests of `nitroproxy policy check`, as a command."""

from __future__ import annotations

import json
import os
import sys
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.commands.main import main
from nitroproxy.config import load


class PolicyTests(SynchronousTestCase):
    """By the configuration of the command line."""

    def setUp(self) -> None:
        """Standard output is caught; there is no configuration on this machine."""
        self.patch(load, "DEFAULT_PATH", self.mktemp())
        self.patch(os, "environ", {})
        self.out = StringIO()
        self.patch(sys, "stdout", self.out)

    def test_check(self) -> None:
        """Each destination is a line; the status is 1 if one may not be reached. Options may stand after them."""
        rules = ["--set", 'egress.allow=["10.0.0.0/8:443"]', "--set", "egress.allow_addresses=10.0.0.0/8"]
        self.assertEqual(main(["policy", "check", *rules, "https://10.0.0.1/"]), 0)
        self.assertIn("allowed: by '10.0.0.0/8:443'", self.out.getvalue())
        self.assertEqual(main(["policy", "check", "10.0.0.1", "https://a.example/", *rules]), 1)
        self.assertEqual(len(self.out.getvalue().splitlines()), 3)
        self.assertIn("403 destination_not_allowed", self.out.getvalue())

    def test_json(self) -> None:
        """--json gives the same as a document, --no-lookup does without the resolver."""
        self.assertEqual(main(["policy", "check", "--json", "--no-lookup", "nowhere.invalid"]), 0)
        [found] = json.loads(self.out.getvalue())
        self.assertEqual((found["url"], found["allowed"], found["addresses"]), ("nowhere.invalid", True, []))
