"""Products of 8-bit integers, some at a time, added to lanes of int32: what each processor has for them.

A *group* is the number of neighbouring bytes that one lane multiplies and adds: 4 where there is a dot product, else 2.
One operand holds activations (signed or not), the other weights, which are signed. Sums are exact in every mode.
"""

from __future__ import annotations

import ctypes
import functools
import sys

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Value, element_of, lanes_of, vector

#: x86's tiles (AMX); x86's dot product of unsigned and signed bytes; arm's of signed ones; int16 pairs
TILES, MIXED, SIGNED, PAIRS = "tiles", "mixed", "signed", "pairs"

_REQUEST, _TILE_DATA = 0x1023, 18
_ARCH_PRCTL = 158


def mode_of(target: Target) -> str:
    """How vectors of bytes are multiplied. (``TILES`` are for many rows: see ``has_tiles``.)"""
    if not target.has_int8_dot:
        return PAIRS
    return SIGNED if _is_arm(target) else MIXED


def has_tiles(target: Target) -> bool:
    """Whether AMX is there, and the system lets this process use it."""
    return target.vector_nbytes == 64 and "+amx-int8" in target.features.split(",") and _tiles_are_permitted()


@functools.cache
def _tiles_are_permitted() -> bool:
    """Ask Linux for room for the tiles' state, once a process."""
    if sys.platform != "linux" or sys.maxsize <= 1 << 32:
        return False
    return bool(ctypes.CDLL(None, use_errno=True).syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA) == 0)


def group_of(mode: str) -> int:
    return 2 if mode == PAIRS else 4


def must_flip(mode: str, activations: str) -> bool:
    """Whether the highest bit of activations is inverted, which adds or takes 128, so that they are of a sign that the
    mode takes. ``activations``: ``int8`` or ``uint8``."""
    return (mode == MIXED and activations == "int8") or (mode == SIGNED and activations == "uint8")


def _is_arm(target: Target) -> bool:
    return target.triple.startswith(("aarch64", "arm64"))


def flipped(f: Function, value: Value) -> Value:
    """Bytes, alone or packed in a wider integer, with their highest bits inverted."""
    element = element_of(value.type)
    mask = sum(0x80 << 8 * n for n in range(int(element[1:]) // 8))
    mask -= (1 << int(element[1:])) if mask >> (int(element[1:]) - 1) else 0
    return f.binary("xor", value, f.const(value.type, mask))


def wide(f: Function, value: Value, mode: str, is_signed: bool) -> Value:
    """Bytes as ``add_products`` takes them: in ``PAIRS`` as int16. ``<n x i8>`` -> the same number of elements."""
    return f.cast("sext" if is_signed else "zext", value, "i16") if mode == PAIRS else value


def every(f: Function, value: Value, lanes: int) -> Value:
    """One group, ``<g x i8>`` or ``<g x i16>``, in all lanes."""
    n, element = lanes_of(value.type), element_of(value.type)
    scalar = f.bitcast(value, f"i{n * int(element[1:])}")
    return f.bitcast(f.splat(scalar, lanes), vector(element, n * lanes))


def add_products(f: Function, target: Target, mode: str, sums: Value, activations: Value, weights: Value) -> Value:
    """``sums`` <lanes x i32> plus, for each lane, the products of a group. Operands are as ``wide`` makes them."""
    lanes = lanes_of(sums.type)
    bits = lanes * 32
    if mode == MIXED:
        return f.call(sums.type, f"llvm.x86.avx512.vpdpbusd.{bits}", [sums, activations, weights])
    if mode == SIGNED:
        return f.call(sums.type, f"llvm.aarch64.neon.sdot.v{lanes}i32.v{4 * lanes}i8", [sums, activations, weights])
    if not _is_arm(target) and bits in (128, 256, 512):
        name = {128: "sse2.pmadd.wd", 256: "avx2.pmadd.wd", 512: "avx512.pmaddw.d.512"}[bits]
        return f.binary("add", sums, f.call(sums.type, f"llvm.x86.{name}", [activations, weights]))
    for part in (0, 1):
        places = range(part, 2 * lanes, 2)
        one, other = (f.cast("sext", f.shuffle(v, v, list(places)), "i32") for v in (activations, weights))
        sums = f.binary("add", sums, f.binary("mul", one, other))
    return sums


# -- tiles


def configure(f: Function, n_tiles: int) -> None:
    """Give the thread tiles of 16 rows × 64 bytes. ``release`` them before the kernel returns."""
    room = f.alloca("i8", 64)
    f.store(f.const("<64 x i8>", 0), room)
    f.store(Value("i8", "1"), room)
    for n in range(n_tiles):
        f.store(Value("i16", "64"), f.at(room, 16 + 2 * n, "i8"), 1)
        f.store(Value("i8", "16"), f.at(room, 48 + n, "i8"))
    f.call("void", "llvm.x86.ldtilecfg", [room])


def release(f: Function) -> None:
    f.call("void", "llvm.x86.tilerelease", [])


def _tile(number: int) -> Value:
    return Value("i8", str(number))


def clear_tile(f: Function, number: int) -> None:
    f.call("void", "llvm.x86.tilezero", [_tile(number)])


def load_tile(f: Function, number: int, address: Value, stride: Value) -> None:
    """``stride``: bytes from row to row."""
    f.call("void", "llvm.x86.tileloadd64", [_tile(number), address, stride])


def store_tile(f: Function, number: int, address: Value, stride: Value) -> None:
    f.call("void", "llvm.x86.tilestored64", [_tile(number), address, stride])


def multiply_tiles(f: Function, sums: int, a: int, b: int, a_signed: bool, b_signed: bool) -> None:
    """Tile ``sums`` += a · b."""
    name = f"llvm.x86.tdpb{'s' if a_signed else 'u'}{'s' if b_signed else 'u'}d"
    f.call("void", name, [_tile(sums), _tile(a), _tile(b)])
