"""The trust anchors. They are constants: no configuration key, variable or option adds to them or replaces them.

A caller in Python may pass others to `verification.verify`, as the tests do.
"""

from __future__ import annotations

from typing import Final

#: SHA-256 of the DER of the root certificate that AWS publishes for all commercial regions ("AWS Nitro Enclaves Root
#: G1", 2019-10-28 to 2049-10-28). The certificate itself is the first of every document's cabundle.
AWS_NITRO_ROOT_G1: Final = bytes.fromhex("641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b")

AWS_ROOTS: Final = frozenset({AWS_NITRO_ROOT_G1})
