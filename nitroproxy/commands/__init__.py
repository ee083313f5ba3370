"""The nitroproxy command: what a person runs by hand. The daemons are twistd's.

`main` is the command line: one tree of argparse parsers, to which each subcommand adds its own. A subcommand is a
module with ``add_parser(subparsers)``, whose parser sets ``run``, a function that takes the parsed arguments and
returns the exit status. To add one, write the module and name it in `main`.

`config` checks or prints the configuration, `policy` says whether a URL may be reached (`policy_check` decides),
`status` asks a running gateway for its status (`gateway_status` reads it), `logs` shows what the daemons
logged, `run_enclave` starts an enclave image with `nitro_cli` and watches it, `install_units` puts systemd units and
configuration in place, `attest` verifies attestation documents, and with `attest_client` enclaves, `image` builds and
examines enclave images, `enclave_init` is the first program of an enclave, `demo` is the command line of the
demonstration. `arguments` has the options and argument types that several of them share.
"""
