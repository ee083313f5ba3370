"""With NITROPROXY_COMPILED=1 mypyc compiles what each request passes through; else all is pure. Metadata: setup.cfg."""

from glob import glob
from os import environ

from setuptools import setup

PARTS = ("http1/[!_]*", "proxy/[!_]*", "target", "host/gateway", "telemetry/metrics")
PURE = {f"nitroproxy/proxy/{n}.py" for n in ("connect_endpoint", "fetch", "listener", "local", "observer", "passage")}
extensions = []
if environ.get("NITROPROXY_COMPILED") == "1":
    from mypyc.build import mypycify

    extensions = mypycify([m for part in PARTS for m in sorted(glob(f"nitroproxy/{part}.py")) if m not in PURE])
setup(ext_modules=extensions)
