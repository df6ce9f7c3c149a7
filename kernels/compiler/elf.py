"""Objects into executable memory, without LLVM: its import takes as long as all else of a small model's session.

What LLVM prints for x86-64 as position-independent code of the large model: sections that are only read, which name
each other by distance, and functions of the C library by slots in a table of addresses. An object with anything else in
it, or for another machine or system, isn't loaded here.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

_MAGIC = b"\x7fELF\x02\x01\x01"  # 64 bit, little endian
_RELOCATABLE, _X86_64 = 1, 62
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_SYMBOLS, _RELOCATIONS, _NO_BITS, _SHORT_RELOCATIONS = 2, 4, 8, 9  # types of sections
_WRITE, _ALLOCATE, _THREAD_LOCAL = 0x1, 0x2, 0x400  # flags of sections
_OUTSIDE = 0  # stands for the section of a symbol that is in none
_TABLE = "_GLOBAL_OFFSET_TABLE_"
#: relocations; in the words of the ABI: S + A, S + A - P (twice in 32 bits), S + A - GOT, G + A, GOT + A - P
_ADDRESS, _DISTANCE, _NEAR, _CALL, _FROM_TABLE, _SLOT, _TO_TABLE = 1, 24, 2, 4, 25, 27, 29


class _Unknown(Exception):
    """Something in an object that isn't handled here."""


class _Section(NamedTuple):
    name: int
    type: int
    flags: int
    address: int
    offset: int
    nbytes: int
    link: int
    info: int
    alignment: int
    entry_nbytes: int


class _Symbol(NamedTuple):
    name: str
    #: where it is in the image; None: nowhere
    place: int | None
    is_outside: bool


def load(code: bytes, symbols: Sequence[str]) -> list[int] | None:
    """Addresses of an object's symbols, as long as the process lives; None where LLVM has to load it.

    The memory is written first and executable after that, never both. Raises OSError where the system allows none.
    """
    if sys.platform == "win32" or not code.startswith(_MAGIC):
        return None
    try:
        if struct.unpack_from("<HH", code, 16) != (_RELOCATABLE, _X86_64):
            return None
        image = _Image(code)
        places = image.places(symbols)
        base = image.written()
    except (_Unknown, LookupError, ValueError, OverflowError, struct.error):
        return None
    return [base + place for place in places]


class _Image:
    """An object's sections as they come to lie in memory, one after the other, and behind them the table."""

    def __init__(self, code: bytes) -> None:
        self._code = code
        start, *_, n_sections, _ = struct.unpack_from("<QIHHHHHH", code, 0x28)
        self._sections = [_Section(*_SECTION.unpack_from(code, start + i * _SECTION.size)) for i in range(n_sections)]
        #: where a section is, by its number
        self._places: dict[int, int] = {}
        end = 0
        for number, section in enumerate(self._sections):
            if section.type == _SHORT_RELOCATIONS:
                raise _Unknown
            if section.flags & _ALLOCATE:
                if section.flags & (_WRITE | _THREAD_LOCAL) or section.alignment > mmap.PAGESIZE:
                    raise _Unknown
                end += -end % max(section.alignment, 1)
                self._places[number] = end
                end += section.nbytes
        self._table = end + -end % 8
        self._symbols = list(self._read_symbols())
        #: where in the image the addresses of symbols are
        self._slots: dict[_Symbol, int] = {}
        for _, kind, symbol, _ in self._relocations():
            if kind == _SLOT:
                self._slots.setdefault(symbol, self._table + 8 * len(self._slots))

    def _content(self, section: _Section) -> bytes:
        content = self._code[section.offset : section.offset + section.nbytes]
        if len(content) != section.nbytes:
            raise _Unknown
        return content

    def _read_symbols(self) -> Iterator[_Symbol]:
        for section in self._sections:
            if section.type == _SYMBOLS:
                names = self._content(self._sections[section.link])
                for start, _, _, number, value, _ in _SYMBOL.iter_unpack(self._content(section)):
                    name = names[start : names.index(b"\0", start)].decode()
                    place = self._places[number] + value if number in self._places else None
                    yield _Symbol(name, place, number == _OUTSIDE)

    def _relocations(self) -> Iterator[tuple[int, int, _Symbol, int]]:
        """(place, kind, symbol, addend)"""
        for section in self._sections:
            if section.type == _RELOCATIONS and section.info in self._places:
                start, nbytes = self._places[section.info], self._sections[section.info].nbytes
                for offset, info, addend in _RELOCATION.iter_unpack(self._content(section)):
                    kind = info & 0xFFFFFFFF
                    if offset + (4 if kind in (_NEAR, _CALL) else 8) > nbytes:
                        raise _Unknown
                    yield start + offset, kind, self._symbols[info >> 32], addend

    def places(self, names: Sequence[str]) -> list[int]:
        """Of functions. Raises LookupError."""
        known = {symbol.name: symbol.place for symbol in self._symbols if symbol.place is not None}
        return [known[name] for name in names]

    def written(self) -> int:
        """The image's address in executable memory."""
        nbytes = self._table + 8 * len(self._slots)
        memory = mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for number, place in self._places.items():
            if (section := self._sections[number]).type != _NO_BITS:
                memory[place : place + section.nbytes] = self._content(section)
        for symbol, slot in self._slots.items():
            memory[slot : slot + 8] = _address(symbol, base).to_bytes(8, "little")
        for place, kind, symbol, addend in self._relocations():
            nbytes = 4 if kind in (_NEAR, _CALL) else 8
            value = self._value(place, kind, symbol, base) + addend
            memory[place : place + nbytes] = value.to_bytes(nbytes, "little", signed=True)
        if _protect()(base, len(memory), mmap.PROT_READ | mmap.PROT_EXEC):
            raise OSError(ctypes.get_errno(), "the system allows no memory that code may be in")
        # threads may be in it until the process has ended: the interpreter, which ends before, must not free it
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
        return base

    def _value(self, place: int, kind: int, symbol: _Symbol, base: int) -> int:
        """What a relocation writes, less its addend."""
        if kind == _SLOT:
            return self._slots[symbol] - self._table
        if kind == _TO_TABLE and symbol.name == _TABLE:
            return self._table - place
        if symbol.place is not None:
            if kind == _FROM_TABLE:
                return symbol.place - self._table
            if kind in (_DISTANCE, _NEAR, _CALL):
                return symbol.place - place
            if kind == _ADDRESS:
                return base + symbol.place
        raise _Unknown


def _address(symbol: _Symbol, base: int) -> int:
    if symbol.place is not None:
        return base + symbol.place
    if not symbol.is_outside:
        raise _Unknown
    return _outside(symbol.name)


@functools.cache
def _outside(name: str) -> int:
    """The address of a function of the C library. Raises LookupError."""
    for library in (None, "libm.so.6"):
        try:
            function = getattr(ctypes.CDLL(library), name)
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    raise LookupError(name)


@functools.cache
def _protect() -> Any:
    function = ctypes.CDLL(None, use_errno=True).mprotect
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function


__all__ = ["load"]
