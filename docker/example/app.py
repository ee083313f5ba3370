"""An application in the enclave: it asks the proxy on its loopback, and the TLS starts in the enclave."""

import os
import urllib.request

with urllib.request.urlopen(f"{os.environ['HTTPS_PROXY']}/https://example.org/") as answer:  # noqa: S310
    print(answer.status, answer.headers["Content-Type"], len(answer.read()), "bytes")
