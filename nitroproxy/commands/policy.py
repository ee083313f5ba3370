"""`nitroproxy policy check`: says what would become of requests. `policy_check` decides it."""

from __future__ import annotations

import argparse
import json

from nitroproxy.commands.arguments import Subparsers, add_configuration_options, load_configuration


def add_parser(subparsers: Subparsers) -> None:
    """Add ``policy`` and its subcommand ``check`` to the command line."""
    policy = subparsers.add_parser(
        "policy",
        help="say whether a destination may be reached, and why",
        description="Ask the policy (egress.allow, egress.deny, egress.allow_addresses) without sending anything.",
    )
    commands = policy.add_subparsers(title="commands", metavar="COMMAND", required=True)
    text = "say of each destination whether it may be reached, and by which rule"
    check = commands.add_parser(
        "check",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Names are resolved on this machine, as the relay would.",
        epilog="Exit status: 0 if all may be reached, 1 if one may not.",
    )
    check.add_argument(
        "destinations",
        nargs="+",
        metavar="DESTINATION",
        help="a URL, host:port as CONNECT names it, or a host alone, which means port 443",
    )
    check.add_argument("--no-lookup", action="store_true", help="do not resolve names: decide by name and port alone")
    check.add_argument("--json", action="store_true", help="print a JSON document")
    add_configuration_options(check)
    check.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what would become of each destination; the exit status."""
    from nitroproxy.commands.policy_check import check_destination
    from nitroproxy.host.dns import look_up
    from nitroproxy.host.own_addresses import own_addresses
    from nitroproxy.policy import AddressGuard

    settings = load_configuration(arguments).settings
    guard = AddressGuard(settings.egress.allow_addresses, own_addresses)
    lookup = None if arguments.no_lookup else look_up
    found = [check_destination(text, settings, guard, lookup) for text in arguments.destinations]
    if arguments.json:
        print(json.dumps([one.to_dict() for one in found], indent=2))
    else:
        for one in found:
            print(one.line)
    return 1 if any(one.error for one in found) else 0
