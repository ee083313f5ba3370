"""`nitroproxy status`: shows how the running stack is. `gateway_status` asks the gateway."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from typing import Final

from nitroproxy.commands.arguments import Subparsers, add_configuration_options, base_url, load_configuration, seconds

#: Seconds between two requests of ``--watch``, at most.
_LONGEST_INTERVAL: Final = 86400.0
_CLEAR_SCREEN: Final = "\x1b[H\x1b[2J"


def add_parser(subparsers: Subparsers) -> None:
    """Add ``status`` to the command line."""
    parser = subparsers.add_parser(
        "status",
        help="show the health of each layer, the traffic and the latest failures",
        description="Ask the gateway how each layer from the host to the internet is and for how long, for the traffic "
        "and the latest failures. It knows that from a look every 5 seconds.",
        epilog="Exit status: 0 if no layer fails, 1 if one does or none has been examined yet, or if the gateway does "
        "not answer.",
    )
    parser.add_argument(
        "--url",
        metavar="URL",
        type=lambda text: base_url(text, ("http",)),
        help="the gateway, or the listener of host_proxy.health_port (default: host_proxy.interface and "
        "host_proxy.port of the configuration)",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON document; with --watch one a line")
    parser.add_argument("-w", "--watch", action="store_true", help="ask again and again until interrupted")
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=seconds(_LONGEST_INTERVAL),
        default=2.0,
        help="pause between two requests of --watch (default: %(default)g)",
    )
    add_configuration_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show the status; the exit status. The configuration is loaded only if it is needed to find the gateway."""
    from nitroproxy.commands.gateway_status import look, render

    url = arguments.url or _gateway(arguments)
    if arguments.watch:
        with contextlib.suppress(KeyboardInterrupt):
            watch(url, arguments.interval, as_json=arguments.json)
        return 0
    status = look(url)
    print(json.dumps(status.to_dict(), indent=2) if arguments.json else render(status))
    return 0 if status.good else 1


def watch(url: str, interval: float, *, as_json: bool) -> None:
    """Show the status again and again until interrupted: one JSON document a line; on a terminal, a cleared screen; in
    a pipe or file, one block after the other with an empty line between them.

    :param interval: seconds between two requests.
    :raises KeyboardInterrupt: when the user interrupts it, which is how it ends.
    """
    from nitroproxy.commands.gateway_status import look, render

    before, after = (_CLEAR_SCREEN, "") if sys.stdout.isatty() else ("", "\n")
    while True:
        status = look(url)
        shown = json.dumps(status.to_dict()) if as_json else f"{before}{render(status)}{after}"
        print(shown, flush=True)
        time.sleep(interval)


def _gateway(arguments: argparse.Namespace) -> str:
    gateway = load_configuration(arguments).settings.host_proxy
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(gateway.interface, gateway.interface)  # noqa: S104
    return f"http://[{host}]:{gateway.port}" if ":" in host else f"http://{host}:{gateway.port}"
