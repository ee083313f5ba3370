"""Imported by every Python that finds it on its path: gives a process of ours an NSM that is none.

FAKE_NSM is a directory: ``clocks`` in it stands for sysfs, ``variant`` names what is wrong with the module (``good``:
nothing), and the digest of its root is written to ``root``. Without FAKE_NSM nothing is changed.
"""

import os
import sys

_DIRECTORY = os.environ.get("FAKE_NSM")


def _install(directory):  # type: ignore[no-untyped-def]
    import fcntl
    import time
    from pathlib import Path

    from nitroproxy.enclave import gates
    from tests.attestation.fake_nsm import FakeNsm

    place = Path(directory)
    variant = (place / "variant").read_text()
    shift = {"slow clock": 10.0}.get(variant, 0.0)
    real = fcntl.ioctl
    made = []  # type: ignore[var-annotated]

    def module():  # type: ignore[no-untyped-def]
        if not made:
            made.append(FakeNsm(lambda: time.time() + shift))
            [digest] = made[0].chain.roots
            (place / "root").write_text(digest.hex())
            if variant == "equal random":
                made[0].random = lambda: bytes(range(256))
        return made[0]

    def ioctl(descriptor, request, *more):  # type: ignore[no-untyped-def]
        if request == 0xC0200A00 and variant != "none":
            return module().ioctl(descriptor, request, *more)
        return real(descriptor, request, *more)

    fcntl.ioctl = ioctl
    gates.CLOCKS = place / "clocks"  # type: ignore[misc]


if _DIRECTORY and "nitroproxy-enclave" in " ".join(sys.orig_argv):
    _install(_DIRECTORY)
