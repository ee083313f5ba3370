"""`tests.limbo`, on cases made here: its counts are what the threat model says, so it must not count wrongly."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.limbo import Unservable, cases, judge, main
from tests.tlsmemory import DAY, NOW, Authority, Identity


class LimboTests(SynchronousTestCase):
    """Good and bad chains."""

    def setUp(self) -> None:
        self.root = Authority()

    def case(self, identity: Identity, expected: str, name: str = "a.example", **more: Any) -> dict[str, Any]:
        return {
            "id": f"test::{expected}",
            "validation_kind": "SERVER",
            "trusted_certs": [self.root.pem.decode()],
            "untrusted_intermediates": [],
            "peer_certificate": identity.pem.decode(),
            "peer_certificate_key": identity.key_pem.decode(),
            "validation_time": None,
            "expected_result": expected,
            "expected_peer_name": {"kind": "DNS", "value": name},
        } | more

    def test_judge(self) -> None:
        """A good chain is accepted; a wrong name and a wrong time are refused, with the client's reason."""
        identity = self.root.issue()
        self.assertIsNone(judge(self.case(identity, "SUCCESS"), "webpki"))
        self.assertIn("not for b.example", judge(self.case(identity, "FAILURE", "b.example"), "webpki") or "")
        late = (NOW + 31 * DAY).isoformat()
        self.assertIn("expired", judge(self.case(identity, "FAILURE", validation_time=late), "webpki") or "")

    def test_unservable(self) -> None:
        """What no server can serve is neither refused nor accepted."""
        other = self.root.issue().key_pem.decode()
        case = self.case(self.root.issue(), "FAILURE", peer_certificate_key=other)
        self.assertRaises(Unservable, judge, case, "webpki")

    def test_main(self) -> None:
        """Only cases with a server, a name and a key are run; the counts are printed, and too few fail."""
        good, bad = self.case(self.root.issue(), "SUCCESS"), self.case(self.root.issue("b.example"), "FAILURE")
        wrong = self.case(self.root.issue(), "FAILURE")
        other = good | {"validation_kind": "CLIENT"}
        path = Path(self.mktemp())
        path.write_text(json.dumps({"testcases": [good, bad, wrong, other, good | {"peer_certificate_key": None}]}))
        self.assertEqual(len(list(cases(str(path)))), 3)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            self.assertEqual(main(str(path)), 1)
            self.assertEqual(main(str(path), "openssl"), 0)
        lines = output.getvalue().splitlines()
        self.assertEqual(lines[0], "accepted    test::FAILURE")
        self.assertEqual(lines[1], "webpki: 1 of 2 bad chains refused, 1 of 1 good ones accepted")
