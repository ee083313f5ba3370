"""Decodes CBOR (RFC 8949) strictly: no tag, no key twice, no deeper than is asked for. Knows nothing of documents."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import cbor2

from nitroproxy.attestation.refusal import Refused


class _NoTags(Mapping[int, Callable[[Any, bool], Any]]):
    """Claims every tag for a decoder that refuses it.

    cbor2 asks this mapping before its own decoders, of which it has some for regular expressions, MIME messages and
    shared references: none of them ever runs.
    """

    def __getitem__(self, tag: int) -> Callable[[Any, bool], Any]:
        def refuse(*_: object) -> NoReturn:
            raise Refused("cbor", f"tag {tag} is not allowed")

        return refuse

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 1  # An empty mapping would not be asked.


_NO_TAGS = _NoTags()


def decode(data: bytes, max_depth: int) -> tuple[object, int]:
    """The first data item in *data*, and its length in bytes; whether more may follow is for the caller to say.

    :param max_depth: how deep arrays and maps may be nested.
    :raises Refused: rule ``cbor``, if it is not well-formed or not as strict as this module says.
    """
    source = io.BytesIO(data)
    # With read_size 1 no byte is read ahead, so that the position tells where the item ends.
    decoder = cbor2.CBORDecoder(
        source, read_size=1, semantic_decoders=_NO_TAGS, max_depth=max_depth, allow_duplicate_keys=False
    )
    try:
        item: object = decoder.decode()
    except (cbor2.CBORError, ValueError, MemoryError, RecursionError) as error:
        refusal = error.__cause__ if isinstance(error.__cause__, Refused) else Refused("cbor", str(error))
        raise refusal from error
    return item, source.tell()


def encode(item: object) -> bytes:
    """*item* in the shortest form, with definite lengths (RFC 8949 section 4.1)."""
    return cbor2.dumps(item)
