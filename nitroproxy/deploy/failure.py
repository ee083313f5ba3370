"""What ends a deployment: the exit status says which kind of thing has to be changed."""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """Exit statuses of deploy.sh."""

    #: The command line, or the configuration.
    USAGE = 2
    #: The instance: its system, Python, device, nitro-cli.
    INSTANCE = 3
    #: Memory, processors, a CID or a port.
    RESOURCES = 4
    #: The artifacts: the image, its measurements, the digests.
    IMAGE = 5
    #: Everything was there, and it did not start.
    START = 6


class Refused(Exception):
    """The deployment cannot go on.

    :param message: what is wrong and what to do, in one line.
    :param details: further lines, such as the end of a journal.
    """

    def __init__(self, status: Status, message: str, details: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.details = details
