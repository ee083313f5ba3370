"""The subcommands of `nitroproxy`, one module each: `attest`.

Each has ``add_parser(subparsers)``, which adds its options to an argparse parser and sets ``run``, a function from
the parsed arguments to the exit status.
"""
