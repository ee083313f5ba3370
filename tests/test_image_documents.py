"""The documents about an image."""

from __future__ import annotations

import io
import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from nitroproxy.image.documents import (
    description,
    measurements_document,
    policy_document,
    root_bytes,
    write_document,
)
from nitroproxy.image.layout import Kind
from nitroproxy.image.measurements import Measurements
from nitroproxy.image.reader import read, read_image
from tests.images import PARTS, VECTORS, image

MEASURED = Measurements("a0", "a1", "a2")


class DocumentTests(SynchronousTestCase):
    """Shapes that other tools read."""

    def test_description(self) -> None:
        """The fields of nitro-cli's describe-eif are there, those of the certificate only for a signed image."""
        found = description(read_image(VECTORS / "signed-p256.eif"))
        self.assertEqual((found["EifVersion"], found["IsSigned"], found["CheckCRC"]), (4, True, True))
        self.assertEqual(found["SigningCertificate"]["Subject"], "CN=vector p256")
        self.assertEqual(found["Metadata"]["BuildTool"], "eif_build")
        self.assertIn("PCR8", found["Measurements"])
        json.dumps(found)
        self.assertNotIn("SigningCertificate", description(read_image(VECTORS / "three-ramdisks.eif")))

    def test_foreign_metadata(self) -> None:
        """Metadata of any shape is described, and never trusted for a size."""
        ours: tuple[object, ...] = (1, {"root_bytes": -1}, {"root_bytes": True})
        customs: list[object] = [None, [], *({"nitroproxy": one} for one in ours)]
        for custom in customs:
            raw = json.dumps({"BuildMetadata": "x", "CustomMetadata": custom}).encode()
            found = read(io.BytesIO(image([*PARTS[:2], (Kind.METADATA, raw), *PARTS[3:]])))
            self.assertIsNone(root_bytes(found))
            json.dumps(description(found))

    def test_measurements(self) -> None:
        """Measurements are in nitro-cli's shape."""
        found = measurements_document(MEASURED)["Measurements"]
        self.assertEqual((found["PCR0"], found["PCR1"], found["PCR2"]), ("a0", "a1", "a2"))

    def test_policy(self) -> None:
        """A policy names the image and its registers; without a requirement its role is empty, to be filled in."""
        found = policy_document("1.4", MEASURED, {"role": "arn:x"})
        self.assertEqual(found["accept"], [{"name": "1.4", "pcrs": {"0": "a0", "1": "a1", "2": "a2"}, "role": "arn:x"}])
        self.assertEqual(policy_document("1.4", MEASURED, {})["accept"][0]["role"], "")
        self.assertEqual(policy_document("1.4", MEASURED, {"public": True})["accept"][0]["public"], True)

    def test_written(self) -> None:
        """A document is written as JSON with a line end."""
        path = Path(self.mktemp())
        write_document(path, {"a": 1})
        self.assertEqual(path.read_text(), '{\n  "a": 1\n}\n')
