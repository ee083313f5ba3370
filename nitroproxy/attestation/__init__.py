"""Verifies AWS Nitro attestation documents. Pure: no Twisted, no sockets, no clock, no environment.

An attestation document is a COSE_Sign1 structure (RFC 9052 section 4.2) that the Nitro Security Module signs; it holds
the measurements (PCRs) of an enclave's image and up to three byte strings of the enclave's own. ``verify`` is the
whole interface for most callers::

    from nitroproxy.attestation import Refused, load_policy, verify

    policy = load_policy("policy.json")
    attestation = verify(document, policy, now=datetime.now(UTC), nonce=nonce)   # or raises Refused

`verification` runs the checks in order: `document` reads the envelope and the payload with the decoder of `cbor`,
`certificate` and `chain` judge the certificates up to a root of `roots`, and `policy` says which images are accepted.
`policy_file` reads a policy from a file. `evidence` binds a document to a TLS connection. `refusal` is the one
exception.
"""

from nitroproxy.attestation.policy import Entry, Policy, PolicyError
from nitroproxy.attestation.policy_file import load_policy
from nitroproxy.attestation.refusal import Refused
from nitroproxy.attestation.roots import AWS_ROOTS
from nitroproxy.attestation.verification import Attestation, check_time, verify

__all__ = [
    "AWS_ROOTS",
    "Attestation",
    "Entry",
    "Policy",
    "PolicyError",
    "Refused",
    "check_time",
    "load_policy",
    "verify",
]
