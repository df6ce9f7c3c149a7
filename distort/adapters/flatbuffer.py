"""The part of the flatbuffer format that adapter files need: tables of 4-byte fields, strings and vectors.

A flatbuffer is a file of little-endian pieces that point at each other. An offset to a piece is unsigned and counts
from where the offset lies. A table starts with a signed distance back to its vtable, which tells for every field how
far from the table's start it lies, 0 where it is absent. A string or a vector starts with its number of elements.

The reader trusts no number of the file: each position is held against the file's end, and against the alignment that
onnxruntime's verifier wants, before it is used. It follows no chain of offsets, so that reading always ends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

#: offsets to the vtable are signed 32-bit numbers, and so onnxruntime takes no larger file
MAX_NBYTES = 2**31 - 1

_U16, _U32, _I32 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<i")
_HEAD_NBYTES = 8  # the offset of the root table, the identifier
_BLOB_ALIGNMENT = 64  # a cache line; more than any element needs


class FlatbufferError(ValueError):
    """Bytes that are no flatbuffer, or one whose pieces contradict each other."""


class Reader:
    """A flatbuffer in memory."""

    def __init__(self, data: memoryview) -> None:
        self.data = data

    def has_identifier(self, identifier: bytes) -> bool:
        """Whether the four bytes after the root's offset are these, and something follows."""
        return len(self.data) > _HEAD_NBYTES and self.data[4:_HEAD_NBYTES] == identifier

    def root(self) -> Table:
        if len(self.data) > MAX_NBYTES:
            raise FlatbufferError(f"{len(self.data)} bytes are more than a flatbuffer may have")
        return Table(self, self.target(0))

    def _number(self, form: struct.Struct, position: int) -> int:
        if position % form.size:
            raise FlatbufferError(f"a number of {form.size} bytes at {position} is not aligned")
        if not 0 <= position <= len(self.data) - form.size:
            raise FlatbufferError(f"position {position} lies outside the {len(self.data)} bytes")
        return int(form.unpack_from(self.data, position)[0])

    def u16(self, position: int) -> int:
        return self._number(_U16, position)

    def u32(self, position: int) -> int:
        return self._number(_U32, position)

    def i32(self, position: int) -> int:
        return self._number(_I32, position)

    def target(self, position: int) -> int:
        """Where the offset at a position leads."""
        offset = self.u32(position)
        if offset == 0:
            raise FlatbufferError(f"the offset at {position} leads nowhere")
        return position + offset

    def elements(self, position: int, itemsize: int) -> memoryview:
        """The bytes of the vector at a position, whose elements are aligned as their size is, up to 4."""
        count = self.u32(position)
        start = position + 4
        if count * itemsize > len(self.data) - start:
            raise FlatbufferError(f"{count} elements of {itemsize} bytes at {start} reach beyond the end")
        return self.data[start : start + count * itemsize]


class Table:
    """A table of a flatbuffer; fields are numbered as in the schema, from 0."""

    def __init__(self, reader: Reader, position: int) -> None:
        self._reader = reader
        self._position = position
        self._vtable = position - reader.i32(position)
        self._vtable_nbytes = reader.u16(self._vtable)
        if self._vtable_nbytes % 2 or self._vtable + self._vtable_nbytes > len(reader.data):
            raise FlatbufferError(f"the vtable at {self._vtable} has a wrong size: {self._vtable_nbytes}")

    def _field(self, number: int) -> int | None:
        """Where a field lies; None where the table lacks it."""
        entry = 4 + 2 * number
        if entry + 2 > self._vtable_nbytes:
            return None
        distance = self._reader.u16(self._vtable + entry)
        return self._position + distance if distance else None

    def int32(self, number: int, default: int = 0) -> int:
        at = self._field(number)
        return default if at is None else self._reader.i32(at)

    def string(self, number: int) -> memoryview | None:
        """The bytes of a string, without the zero that ends it."""
        at = self._field(number)
        if at is None:
            return None
        position = self._reader.target(at)
        found = self._reader.elements(position, 1)
        end = position + 4 + len(found)
        if end >= len(self._reader.data) or self._reader.data[end] != 0:
            raise FlatbufferError(f"the string at {position} has no end")
        return found

    def vector(self, number: int, itemsize: int) -> memoryview | None:
        """The bytes of a vector of numbers."""
        at = self._field(number)
        return None if at is None else self._reader.elements(self._reader.target(at), itemsize)

    def tables(self, number: int) -> Iterator[Table]:
        """The tables that a vector of offsets leads to."""
        at = self._field(number)
        if at is None:
            raise FlatbufferError(f"the vector of tables in field {number} is missing")
        position = self._reader.target(at)
        count = len(self._reader.elements(position, 4)) // 4
        for index in range(count):
            yield Table(self._reader, self._reader.target(position + 4 + 4 * index))


class Writer:
    """A flatbuffer that grows forwards: what points is written before what it points at.

    Large vectors of bytes are not copied. They follow everything else, aligned to a cache line, so that the file can be
    mapped and each be read where it lies.
    """

    def __init__(self, identifier: bytes) -> None:
        self._head = bytearray(4) + identifier
        self._vtables: dict[int, int] = {}
        self._blobs: list[tuple[int, memoryview]] = []  # the position of the offset, the bytes

    def root(self, fields: Sequence[int]) -> int:
        return self.table(0, fields)

    def _align(self, alignment: int, ahead: int = 0) -> int:
        """Pad until what comes ``ahead`` bytes later is aligned; the position."""
        self._head += bytes(-(len(self._head) + ahead) % alignment)
        return len(self._head)

    def _lead(self, offset: int, position: int) -> None:
        """Let the offset that lies at ``offset`` lead to a position."""
        _U32.pack_into(self._head, offset, position - offset)

    def table(self, offset: int, fields: Sequence[int]) -> int:
        """A table of 4-byte fields; the position of the first. Those that are offsets get their value later."""
        n_fields = len(fields)
        if n_fields not in self._vtables:
            self._vtables[n_fields] = self._align(4)
            places = (4 + 4 * index for index in range(n_fields))
            self._head += struct.pack(f"<{2 + n_fields}H", 4 + 2 * n_fields, 4 + 4 * n_fields, *places)
        position = self._align(4)
        self._lead(offset, position)
        self._head += struct.pack(f"<{1 + n_fields}i", position - self._vtables[n_fields], *fields)
        return position + 4

    def string(self, offset: int, text: bytes) -> None:
        self._lead(offset, self._align(4))
        self._head += _U32.pack(len(text)) + text + b"\0"

    def int64s(self, offset: int, numbers: Sequence[int]) -> None:
        """A vector of 64-bit numbers."""
        self._lead(offset, self._align(8, ahead=4))
        self._head += struct.pack(f"<I{len(numbers)}q", len(numbers), *numbers)

    def offsets(self, offset: int, count: int) -> int:
        """A vector of offsets; the position of the first."""
        position = self._align(4)
        self._lead(offset, position)
        self._head += _U32.pack(count) + bytes(4 * count)
        return position + 4

    def blob(self, offset: int, data: memoryview) -> None:
        """A vector of bytes."""
        self._blobs.append((offset, data))

    def finish(self) -> list[bytes | memoryview]:
        """The pieces of the file, in order. Raises FlatbufferError where they are too much for one file."""
        pieces: list[bytes | memoryview] = []
        end = len(self._head)
        for offset, data in self._blobs:
            padding = -(end + 4) % _BLOB_ALIGNMENT
            start = end + padding
            end = start + 4 + len(data)
            if end > MAX_NBYTES:
                raise FlatbufferError(f"a flatbuffer holds less than 2 GiB, and these parts take {end} bytes or more")
            self._lead(offset, start)
            pieces += [bytes(padding) + _U32.pack(len(data)), data]
        return [bytes(self._head), *pieces]
