"""The generation in force and the one before."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.deploy import state
from nitroproxy.deploy.machine import Machine
from nitroproxy.deploy.state import EIF, Generation, State


class StateTests(SynchronousTestCase):
    """Below a root."""

    def setUp(self) -> None:
        self.machine = Machine(Path(self.mktemp()), {})
        self.path = self.machine.path(EIF)
        self.previous = self.path.with_name("enclave.eif.previous")
        self.source = Path(self.mktemp())

    def put(self, text: str) -> None:
        self.source.write_text(text)
        state.put_file(self.machine, EIF, self.source)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path.parent))

    def test_state(self) -> None:
        """What is written is read; nonsense is nothing."""
        self.assertIsNone(state.read_state(self.machine))
        for previous in (None, Generation("1", "/opt/nitroproxy-1")):
            wanted = State(Generation("2", "/opt/nitroproxy-2"), previous)
            state.write_state(self.machine, wanted)
            self.assertEqual(state.read_state(self.machine), wanted)
        for text in ("{", "[]", '{"current": 1}', '{"current": {}, "previous": null}'):
            state.files(self.machine)[0].write_text(text)
            self.assertIsNone(state.read_state(self.machine))

    def test_put(self) -> None:
        """A new file becomes the present one; only when it is committed the old one becomes the previous one."""
        for text in ("1", "2"):
            self.put(text)
            state.commit(self.machine, EIF)
        self.assertEqual((self.path.read_text(), self.previous.read_text()), ("2", "1"))
        self.put("3")
        self.assertEqual((self.path.read_text(), self.previous.read_text()), ("3", "1"))
        state.restore(self.machine, EIF)
        self.assertEqual((self.path.read_text(), self.previous.read_text()), ("2", "1"))
        self.assertEqual(self.names(), ["enclave.eif", "enclave.eif.previous"])
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o644)

    def test_first(self) -> None:
        """The first file leaves nothing when it is taken back."""
        self.put("1")
        state.restore(self.machine, EIF)
        self.assertEqual(self.names(), [])

    def test_unchanged(self) -> None:
        """A file of two generations is both, without a copy, however often; exchanging them leaves nothing else."""
        self.put("1")
        for _ in range(3):
            state.commit(self.machine, EIF)
            self.assertTrue(self.path.samefile(self.previous))
            self.assertEqual(self.names(), ["enclave.eif", "enclave.eif.previous"])
        state.swap_previous(self.machine, EIF)
        self.assertEqual(self.names(), ["enclave.eif", "enclave.eif.previous"])

    def test_swap(self) -> None:
        """Going back exchanges the two; without a previous file nothing happens."""
        self.put("1")
        state.swap_previous(self.machine, EIF)
        self.assertEqual(self.path.read_text(), "1")
        self.put("2")
        state.commit(self.machine, EIF)
        for present, previous in (("1", "2"), ("2", "1")):
            state.swap_previous(self.machine, EIF)
            self.assertEqual((self.path.read_text(), self.previous.read_text()), (present, previous))
        self.assertEqual(self.names(), ["enclave.eif", "enclave.eif.previous"])

    def test_same_content(self) -> None:
        """Files are compared by their bytes."""
        one, two = Path(self.mktemp()), Path(self.mktemp())
        self.assertFalse(state.same_content(one, two))
        one.write_bytes(b"a" * (1 << 20) + b"b")
        two.write_bytes(b"a" * (1 << 20) + b"c")
        self.assertFalse(state.same_content(one, two))
        two.write_bytes(one.read_bytes())
        self.assertTrue(state.same_content(one, two))
