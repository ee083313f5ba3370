"""Name constraints (RFC 5280 section 4.2.1.10) against wildcard names (CVE-2025-61727).

An authority that must not issue for ``test.example.org`` must not issue for ``*.example.org`` either, and one that may
only issue for ``test.example.org`` neither: the wildcard covers names that it may not vouch for. OpenSSL compares the
wildcard as if it were a name, and misses the first. Everything else about constraints OpenSSL checks itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from cryptography import x509

from nitroproxy.tls.names import alternative_names
from nitroproxy.tls.reasons import Refused, shown, subject_of

#: Characters of a name (RFC 1035 section 2.3.4). What lies above a longer one grows with its square: a certificate of
#: 90 KB could take gigabytes.
_LONGEST_NAME: Final = 253


def check_wildcards(chain: Sequence[x509.Certificate]) -> None:
    """No wildcard of the first certificate of *chain* may cover a name that one of the others may not vouch for.

    :param chain: as verified, from the destination's certificate to the anchor.
    :raises Refused: naming wildcard, constraint and authority.
    :raises Exception: any other, for a certificate that cannot be read: that refuses it, too.
    """
    names = [name.value for name in alternative_names(chain[0]) if isinstance(name, x509.DNSName)]
    bases = [name[2:].lower() for name in names if name.startswith("*.")]
    if not bases:
        return
    if max(map(len, bases)) > _LONGEST_NAME:
        raise Refused(f"it has a wildcard name of over {_LONGEST_NAME} characters, which no name in the DNS has")
    for authority in chain[1:]:
        try:
            constraints = authority.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            continue
        for reason in _violations(bases, constraints):
            raise Refused(f"{reason} (name constraints of {subject_of(authority)})")


def _violations(bases: Iterable[str], constraints: x509.NameConstraints) -> Iterator[str]:
    # By sets: a hostile authority can bring thousands of subtrees, and a certificate thousands of names.
    excluded, permitted = _subtrees(constraints.excluded_subtrees), _subtrees(constraints.permitted_subtrees)
    # One label is all that a wildcard stands for (RFC 9525 section 6.3).
    covering = {subtree.partition(".")[2]: subtree for subtree in excluded if subtree}
    for base in bases:
        above = set(_above(base))
        covered = next(iter(above & excluded), covering.get(base))
        if covered is not None:
            yield f"its name {shown('*.' + base)} covers {shown(covered)}, which its authority must not vouch for"
        if permitted and not above & permitted:
            listed = ", ".join(map(shown, sorted(permitted)[:5]))
            yield f"its name {shown('*.' + base)} covers more than its authority may vouch for: {listed}"


def _subtrees(names: Sequence[x509.GeneralName] | None) -> set[str]:
    return {name.value.lower().removeprefix(".") for name in names or () if isinstance(name, x509.DNSName)}


def _above(name: str) -> Iterator[str]:
    """The subtrees that *name* lies in: itself, what is above it, and the empty one, in which everything lies."""
    yield name
    while name:
        name = name.partition(".")[2]
        yield name
