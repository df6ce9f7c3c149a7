"""A serialized model without its large weights: a message to parse, and where in the file the weights lie.

Protobuf copies all of a model when it parses it, and each tensor again when it is asked for. In its wire format a
message is a row of fields; a key (number << 3 | type) and, for bytes and messages, a length go before each. So the raw
data of a large initializer can be left out of the copy that is parsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

#: raw data from so many bytes on is left out
LEAST_NBYTES = 1 << 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: ModelProto.graph, GraphProto.initializer, TensorProto.raw_data
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9


class _Odd(Exception):
    """What protobuf had better look at as a whole."""


@dataclass(slots=True)
class Split:
    """``message`` is the model without ``raw``: by the number of an initializer, where its data begins and ends."""

    message: bytes
    raw: dict[int, tuple[int, int]]


@dataclass(slots=True)
class _Pieces:
    parts: list[bytes | memoryview] = field(default_factory=list)
    nbytes: int = 0

    def add(self, part: bytes | memoryview) -> None:
        self.parts.append(part)
        self.nbytes += len(part)


def split(content: memoryview) -> Split | None:
    """None where nothing large is found, or the bytes are odd: protobuf then takes them as they are."""
    raw: dict[int, tuple[int, int]] = {}
    pieces = _Pieces()
    n_initializers = 0
    try:
        for number, begin, value, end in _fields(content, 0, len(content)):
            if number != _GRAPH:
                pieces.add(content[begin:end])
                continue
            graph, n_initializers = _graph(content, value, end, n_initializers, raw)
            pieces.add(_key(_GRAPH, graph.nbytes))
            pieces.parts += graph.parts
    except (_Odd, IndexError):
        return None
    return Split(b"".join(pieces.parts), raw) if raw else None


def _graph(
    content: memoryview, begin: int, end: int, n_initializers: int, raw: dict[int, tuple[int, int]]
) -> tuple[_Pieces, int]:
    pieces = _Pieces()
    kept = begin  # what is copied as it is up to here
    for number, start, value, stop in _fields(content, begin, end):
        if number != _INITIALIZER:
            continue
        found = _raw_data(content, value, stop) if stop - value >= LEAST_NBYTES else None
        if found is not None:
            first, data, last = found
            pieces.add(content[kept:start])
            pieces.add(_key(_INITIALIZER, stop - value - (last - first)))
            pieces.add(content[value:first])
            kept = last
            raw[n_initializers] = (data, last)
        n_initializers += 1
    pieces.add(content[kept:end])
    return pieces, n_initializers


def _raw_data(content: memoryview, begin: int, end: int) -> tuple[int, int, int] | None:
    """Where the field begins, its data, and where both end; None where it is not large."""
    found = None
    for number, start, value, stop in _fields(content, begin, end):
        if number == _RAW_DATA:
            if found is not None:
                raise _Odd
            found = (start, value, stop)
    return found if found is not None and found[2] - found[1] >= LEAST_NBYTES else None


def _fields(content: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, where the key begins, where the value does, where it ends) of each field; 0 for one that is no bytes."""
    while at < end:
        begin = at
        key, at = _varint(content, at)
        kind = key & 7
        value = at
        if kind == _BYTES:
            nbytes, value = _varint(content, at)
            at = value + nbytes
        elif kind == _VARINT:
            _, at = _varint(content, at)
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        else:
            raise _Odd
        if at > end:
            raise _Odd
        yield key >> 3 if kind == _BYTES else 0, begin, value, at


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    byte = content[at]
    at += 1
    if byte < 0x80:
        return byte, at
    number, shift = byte & 0x7F, 7
    while byte >= 0x80:
        if shift > 63:
            raise _Odd
        byte = content[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
    return number, at


def _key(number: int, nbytes: int) -> bytes:
    """What goes before bytes or a message."""
    made = bytearray([number << 3 | _BYTES])
    while nbytes >= 0x80:
        made.append(nbytes & 0x7F | 0x80)
        nbytes >>= 7
    made.append(nbytes)
    return bytes(made)
