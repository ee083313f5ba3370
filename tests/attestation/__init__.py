"""Attestation documents for the tests: real ones, forged ones, and a machine without an NSM that makes them.

`pki` is an attestation PKI of our own whose every certificate can be changed; `fake_nsm` signs with it behind
`fcntl.ioctl`. `real` reads the stored documents of AWS's NSMs. `cases` is what a case is and how it is judged;
`mutations` changes real documents, `field_rules`, `certificate_rules` and `verdict_rules` break one rule at a time with
the PKI. ``python -m tests.attestation`` runs all of them.
"""
