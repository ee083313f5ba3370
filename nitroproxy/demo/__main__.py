"""`python -m nitroproxy.demo` is `nitroproxy demo`."""

from __future__ import annotations

import sys

from nitroproxy.demo.main import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
