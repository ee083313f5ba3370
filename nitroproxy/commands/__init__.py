"""The nitroproxy command: what a person runs by hand. The daemons are twistd's.

`main` parses the command line. `status` asks a running gateway for its health and counts, `policy_check` says whether
a URL may be reached, `attest` verifies attestation documents, `run_enclave` starts an enclave image and watches it,
`install_units` puts systemd units and configuration in place, `image` builds and examines enclave images,
`enclave_init` is the first program of one.
"""
