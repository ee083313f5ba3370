"""A client from outside: POSTs a text to an enclave by attested TLS, challenged, and prints what came of it as JSON.

usage: python -m tests.nitro.attested_client URL POLICY ROOT.pem TEXT
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import treq
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from treq.client import HTTPClient
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.web.client import ResponseFailed

from nitroproxy.attestation import Refused, load_policy
from nitroproxy.commands.attest_client import connects_to, verified
from nitroproxy.tls.attested import AttestedAgent


async def ask(reactor: Any, url: str, policy_file: str, root_file: str, text: str) -> dict[str, Any]:
    """What came of it: the answer and what the enclave proved, or the rule for which it was refused."""
    policy = load_policy(policy_file)
    root = x509.load_pem_x509_certificate(Path(root_file).read_bytes()).fingerprint(hashes.SHA256())
    started = time.monotonic()
    agent = AttestedAgent(reactor, policy, challenge=True, persistent=False, roots=[root])
    try:
        response = await HTTPClient(agent).post(url, data=text.encode())
        body = await treq.text_content(response)
    except Refused as refused:
        return {"refused": refused.rule}
    except ResponseFailed as error:
        return {"failed": str(error.reasons)}
    seconds = time.monotonic() - started
    identity = await verified(connects_to(url, policy, False, roots=[root])(reactor))
    assert not isinstance(identity, int)
    pcrs = {index: value.hex() for index, value in identity.attestation.pcrs.items()}
    return {
        "status": response.code,
        "body": body,
        "pcrs": pcrs,
        "registered": identity.user_data.hex(),
        "seconds": seconds,
    }


def main() -> None:
    """Run it."""

    async def run(reactor: Any) -> None:
        print(json.dumps(await ask(reactor, *sys.argv[1:])))

    task.react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
