"""Tests of `nitroproxy.enclave.nsm_device`, with an NSM behind `fcntl.ioctl`."""

from __future__ import annotations

import errno
import fcntl
import os
from datetime import timedelta

import cbor2
from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.attestation import verify
from nitroproxy.enclave.nsm_device import Description, NsmDevice, NsmError, check_lengths
from tests.attestation.fake_nsm import MODULE_ID, FakeNsm
from tests.attestation.pki import T0


class DeviceTests(SynchronousTestCase):
    """Requests and answers, through the memory that the driver reads and writes."""

    def setUp(self) -> None:
        self.nsm = FakeNsm()
        self.patch(fcntl, "ioctl", self.nsm.ioctl)
        self.device = NsmDevice(os.devnull)
        self.addCleanup(self.device.close)

    def failure(self, answer: object) -> str:
        """How *answer*, CBOR or an OSError, makes every request fail."""
        self.nsm.instead = answer if isinstance(answer, bytes | OSError) else cbor2.dumps(answer)
        messages = []
        for call, name in (
            (self.device.attestation, "Attestation"),
            (self.device.random, "GetRandom"),
            (self.device.describe, "DescribeNSM"),
        ):
            message = str(self.assertRaises(NsmError, call))
            messages.append(message.replace(name, "X"))
        self.assertEqual(len(set(messages)), 1, messages)
        return messages[0]

    def test_attestation(self) -> None:
        """A document with the largest fields is requested as AWS's crate does, and verifies."""
        fields = {"user_data": b"u" * 512, "nonce": b"n" * 512, "public_key": b"p" * 1024}
        document = self.device.attestation(**fields)
        self.assertEqual(self.nsm.requests, [{"Attestation": fields}])
        now = T0 + timedelta(minutes=2)
        attestation = verify(document, self.nsm.policy, now=now, nonce=b"n" * 512, roots=self.nsm.chain.roots)
        self.assertEqual(attestation.module_id, MODULE_ID)
        self.assertEqual((attestation.user_data, attestation.public_key), (b"u" * 512, b"p" * 1024))

    def test_nothing_asked_for(self) -> None:
        """Fields that are not given are sent as null."""
        self.device.attestation()
        self.assertEqual(self.nsm.requests, [{"Attestation": {"user_data": None, "nonce": None, "public_key": None}}])

    def test_random(self) -> None:
        """GetRandom is sent as the kernel's own driver sends it; its 256 bytes differ each time."""
        first, second = self.device.random(), self.device.random()
        self.assertEqual(self.nsm.requests, ["GetRandom"] * 2)
        self.assertEqual(len(first), 256)
        self.assertNotEqual(first, second)

    def test_describe(self) -> None:
        """The NSM's description is returned."""
        self.assertEqual(self.device.describe(), Description(MODULE_ID, "1.2.3", tuple(range(16))))

    def test_refusals(self) -> None:
        """The message contains the NSM's error code, escaped."""
        self.assertEqual(self.failure({"Error": "InputTooLarge"}), "the NSM refused X: InputTooLarge")
        self.assertEqual(self.failure({"Error": "a\n"}), "the NSM refused X: a\\n")

    def test_driver_failures(self) -> None:
        """The message contains the driver's error."""
        for number in (errno.ETIMEDOUT, errno.EIO, errno.ENODATA):
            error = OSError(number, os.strerror(number))
            self.assertEqual(self.failure(error), f"the NSM failed at X: {os.strerror(number)}")

    def test_not_an_answer(self) -> None:
        """An answer to another request, and an answer that cannot be read, are errors."""
        others: tuple[object, ...] = (1, "X", [], {}, {"Other": {}}, {"Attestation": 1, "Error": "x"}, None)
        for answer in others:
            self.assertEqual(self.failure(answer), "the NSM answered X with an unexpected message")
        for encoded in (b"\xff", b"", b"\xd2\x00", b"\xa2\x00\x00\x00\x00", b"\x81" * 100):
            self.assertRegex(self.failure(encoded), "cannot be read|an answer of 0 bytes")

    def test_bytes_after_an_answer(self) -> None:
        """An answer with trailing bytes is refused."""
        self.nsm.instead = cbor2.dumps({"GetRandom": {"random": bytes(256)}})
        self.device.random()
        self.nsm.instead += b"\0"
        self.assertRaises(NsmError, self.device.random)

    def test_cut_answer(self) -> None:
        """An answer that fills the buffer may have been cut by the driver: it is refused."""
        self.nsm.instead = cbor2.dumps({"Attestation": {"document": b"x" * 12000}})
        self.assertEqual(len(self.device.attestation()), 12000)
        for size in (12288 - len(self.nsm.instead) + 12000, 20000):
            self.nsm.instead = cbor2.dumps({"Attestation": {"document": b"x" * size}})
            self.assertIn("an answer of 12288 bytes", str(self.assertRaises(NsmError, self.device.attestation)))

    def test_wrong_fields(self) -> None:
        """An answer of the right kind with fields of the wrong one is an error."""
        for name, call, fields in (
            ("Attestation", self.device.attestation, {"document": "text"}),
            ("Attestation", self.device.attestation, {"document": b""}),
            ("Attestation", self.device.attestation, {}),
            ("GetRandom", self.device.random, {"random": bytes(255)}),
            ("GetRandom", self.device.random, {"random": "r" * 256}),
            ("DescribeNSM", self.device.describe, {"module_id": "i", "locked_pcrs": [0]}),
            ("DescribeNSM", self.device.describe, {**_DESCRIBED, "locked_pcrs": {0: 1}}),
            ("DescribeNSM", self.device.describe, {**_DESCRIBED, "locked_pcrs": [True]}),
            ("DescribeNSM", self.device.describe, {**_DESCRIBED, "module_id": None}),
        ):
            self.nsm.instead = cbor2.dumps({name: fields})
            self.assertRaises(NsmError, call)

    def test_request_too_long(self) -> None:
        """A request that the driver would refuse is not sent."""
        message = str(self.assertRaises(NsmError, self.device.attestation, nonce=bytes(4096)))
        self.assertIn("the NSM takes 4096", message)
        self.assertEqual(self.nsm.requests, [])


class OpenTests(SynchronousTestCase):
    """The device file."""

    def test_missing(self) -> None:
        """Outside an enclave there is no device: the message names it and says what to check."""
        message = str(self.assertRaises(NsmError, NsmDevice, self.mktemp()))
        self.assertIn("No such file or directory; is this an enclave, and is its nsm driver loaded?", message)

    def test_not_an_nsm(self) -> None:
        """For a file that is not an NSM the message contains the kernel's error."""
        device = NsmDevice(os.devnull)
        self.addCleanup(device.close)
        self.assertIn("Inappropriate ioctl", str(self.assertRaises(NsmError, device.random)))

    def test_not_inherited(self) -> None:
        """Programs that the daemon starts do not inherit it."""
        opened: list[int] = []
        original = os.open

        def recorded(path: str, flags: int) -> int:
            opened.append(original(path, flags))
            return opened[-1]

        self.patch(os, "open", recorded)
        device = NsmDevice(os.devnull)
        self.addCleanup(device.close)
        self.assertFalse(os.get_inheritable(opened[0]))


class LengthTests(SynchronousTestCase):
    """What a document may carry."""

    def test_limits(self) -> None:
        """512 bytes of user data and of nonce, 1 to 1,024 of public key, or nothing."""
        check_lengths(user_data=None, nonce=None, public_key=None)
        check_lengths(user_data=b"", nonce=b"", public_key=b"p")
        check_lengths(user_data=b"u" * 512, nonce=b"n" * 512, public_key=b"p" * 1024)
        for name, value, text in (
            ("user_data", b"u" * 513, "user_data: expected 0 to 512 bytes, got 513"),
            ("nonce", b"n" * 513, "nonce: expected 0 to 512 bytes, got 513"),
            ("public_key", b"p" * 1025, "public_key: expected 1 to 1024 bytes, got 1025"),
            ("public_key", b"", "public_key: expected 1 to 1024 bytes, got 0"),
        ):
            self.assertEqual(str(self.assertRaises(ValueError, check_lengths, **{name: value})), text)


_DESCRIBED = {"module_id": "i", "locked_pcrs": [0], "version_major": 1, "version_minor": 0, "version_patch": 0}
