"""What the enclave's init asks of the kernel and of the image: the loopback interface, users, programs."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import shutil
import socket
import struct
from collections.abc import Mapping
from typing import Final

from nitroproxy.enclave.init_children import Account

#: netdevice(7): SIOCGIFFLAGS and SIOCSIFFLAGS, and struct ifreq with flags.
_GET_FLAGS: Final = 0x8913
_SET_FLAGS: Final = 0x8914
_REQUEST: Final = struct.Struct("16sh14x")
_UP: Final = 1
_HIGHEST_ID: Final = (1 << 32) - 2


class CannotStart(Exception):
    """The enclave cannot work as it is; the message says why, and what to change."""


def bring_loopback_up() -> bool:
    """Bring the interface ``lo`` up, unless it is up; whether it was down.

    :raises CannotStart: it is down, and may not be brought up.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _GET_FLAGS, _REQUEST.pack(b"lo", 0))
            _, flags = _REQUEST.unpack(answer)
            if flags & _UP:
                return False
            fcntl.ioctl(any_socket, _SET_FLAGS, _REQUEST.pack(b"lo", flags | _UP))
        except OSError as error:
            raise CannotStart(f"the loopback interface cannot be brought up: {error.strerror}; run as root") from error
    return True


def account(text: str) -> Account:
    """The user that *text* names: a name or number of a user, and after a colon one of a group.

    :raises CannotStart: there is no such user or group.
    """
    user, _, group = text.partition(":")
    gid = None
    if user.isdecimal():
        uid = _number(text, user)
    else:
        try:
            entry = pwd.getpwnam(user)
        except (KeyError, ValueError):
            raise CannotStart(f"the user {text!r} is not in the image's /etc/passwd; give a number") from None
        uid, gid = entry.pw_uid, entry.pw_gid
    if group.isdecimal():
        gid = _number(text, group)
    elif group:
        try:
            gid = grp.getgrnam(group).gr_gid
        except (KeyError, ValueError):
            raise CannotStart(f"the group of {text!r} is not in the image's /etc/group; give a number") from None
    return Account(uid, uid if gid is None else gid)


def _number(text: str, digits: str) -> int:
    number = int(digits)
    if number > _HIGHEST_ID:
        raise CannotStart(f"the user {text!r}: expected numbers up to {_HIGHEST_ID}")
    return number


def find_program(name: str, environ: Mapping[str, str]) -> str:
    """Where *name* is by the PATH of *environ*.

    :raises CannotStart: it is nowhere, or not executable.
    """
    found = shutil.which(name, path=environ.get("PATH", os.defpath))
    if found is None:
        where = "" if "/" in name else f" in {environ.get('PATH', os.defpath)}"
        raise CannotStart(f"there is no program {name}{where}, or it is not executable")
    return found
