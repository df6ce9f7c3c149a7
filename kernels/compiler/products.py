"""Matrix products as tensor operations: how they are cut, which register tile they get, what joins them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from distort.kernels.compiler import half
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.codegen.gemm import (
    BF16,
    CODES,
    COLUMNS,
    DOTS,
    FEW_CODES,
    PACKED,
    ROWS,
    Gemm,
    scratch_nbytes,
)
from distort.kernels.compiler.codegen.maps import BROADCAST, CONTIGUOUS
from distort.kernels.compiler.codegen.packing import pack_pairs, pack_panels
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.tiles import Tile
from distort.kernels.compiler.expression import Expression, name_of, of_sums
from distort.kernels.compiler.fuse import compose
from distort.kernels.compiler.ir import (
    ALIGNMENT,
    Array,
    Buffer,
    Call,
    Map,
    Operation,
    Scratch,
    Tensor,
    Word,
    broadcast_shape,
    repeating,
)
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.loops import loops_of_source, merged
from distort.kernels.compiler.lower.views import strides_after

#: element types that are multiplied here, all as float32
DTYPES = ("float32", "float16", "bfloat16")
#: rows of a tile by its vectors: sums, a line of the panel and an element of A fill the registers
_ROWS_OF_32 = {3: 8, 4: 6, 2: 12, 1: 12}
_ROWS_OF_16 = {2: 6, 3: 4, 1: 8}
#: what a padded column costs in tiles of so many vectors, against the best
_COST = {1: 1.3, 2: 1.04, 3: 1.0, 4: 1.02}
#: rows of A that are gone through for panel after panel stay in the second cache: fewer where all of B does too
_BLOCK_NBYTES, _SMALL_BLOCK_NBYTES, _SMALL_NBYTES = 1 << 20, 1 << 17, 1 << 19
#: so few rows are multiplied with columns, or codes, where these are
_FEW_ROWS = 4
#: up to so many rows a matrix of half precision is read as it is, by others as float32
_NARROW_ROWS = 8
#: longer sums are cut, where several tiles read a panel
_BLOCK_DEPTH, _FEW_TILES = 768, 4
#: lines that are made of codes at once
_DECODED_DEPTH = 128
_FLOP_NS, _ROUNDED_FLOP_NS, _BYTE_NS, _STEP_NS = 1 / 130, 1 / 500, 1 / 25, 100.0
#: products in bfloat16 are cut in this many units, where they are large enough
_SOME_UNITS = 16


@functools.lru_cache(1024)
def tile_of(target: Target, columns: int) -> Tile:
    """By the columns alone, so that packed weights serve any number of rows."""
    rows = _ROWS_OF_32 if target.n_vector_registers >= 32 else _ROWS_OF_16
    wanted = max(1, -(-columns // target.lanes("float")))
    vectors = min(rows, key=lambda n: -(-wanted // n) * n * _COST[n])
    return Tile(rows[vectors], vectors)


@dataclass(eq=False)
class Product(Operation):
    """outputs = expression(A · B, further inputs), which are views in the shape of the result.

    ``inputs``: a [outer, inner, rows, depth]; b [outer, inner, depth, columns], or [outer, inner, panels, depth, width]
    where it is packed; the expression's further inputs.
    """

    sizes: tuple[int, int, int, int]  # outer, inner, rows, columns
    depth: int
    tile: Tile
    form: str  # of b: see ``codegen.gemm``
    expression: Expression
    kind: ClassVar[str] = "product"
    repeats: ClassVar[bool] = True

    def _strides(self, tensor: Tensor) -> tuple[int, ...] | None:
        """In the product's own dimensions; None where they don't go that way, or the columns have steps."""
        if tensor.block:
            return None
        strides = strides_after(tensor, self.sizes)
        return strides if strides is not None and (self.sizes[3] == 1 or strides[3] in (0, 1)) else None

    def absorb(self, after: Map, position: int, target: Target) -> Operation | None:
        del target
        made = self.outputs[0]
        for tensor in after.outputs:
            strides = self._strides(tensor)
            if strides is None or (strides[3] != 1 and self.sizes[3] != 1):
                return None
        for tensor in after.inputs:
            if tensor.buffer is not made.buffer and self._strides(tensor) is None:
                return None
        sums = Tensor(np.dtype(self.expression.inputs[0]), made.shape, made.strides, Buffer(0))
        composed = compose(self.expression, [sums, *self.inputs[2:]], after.expression, after.inputs, made.buffer)
        if composed is None:
            return None
        operands, expression = composed
        inputs = [*self.inputs[:2], *operands[1:]]
        return Product(inputs, list(after.outputs), self.sizes, self.depth, self.tile, self.form, expression)

    def absorb_before(self, before: Map, position: int, target: Target) -> Operation | None:
        """Heads that share keys or values repeat them: they are read where they are, time and again."""
        del target
        if position > 1 or before.expression.body or self.form not in (ROWS, COLUMNS, DOTS):
            return None
        (source,), (copied,) = before.inputs, before.outputs
        repeats = any(n > 1 and not step for n, step in zip(source.shape, source.strides, strict=True))
        read = [t for t in self.inputs if t.buffer is copied.buffer]
        if not repeats or len(read) != 1 or not copied.whole or source.dtype != copied.dtype or read[0].offset:
            return None
        found = [
            loops_of_source(n, step, source, copied) for n, step in zip(read[0].shape, read[0].strides, strict=True)
        ]
        if any(loops is None for loops in found):
            return None
        outer, inner, *matrix = (loops for loops in found if loops is not None)
        sizes = self.sizes
        if len(inner) == 2 and sizes[0] == 1:
            # heads by groups of those that share
            outer, inner = inner[:1], inner[1:]
            sizes = (outer[0][0], inner[0][0], *sizes[2:])
        loops = [outer, inner, *matrix]
        unit = matrix[1 if self.form == ROWS or position == 0 else 0]
        if any(len(one) != 1 for one in loops) or (unit[0][0] != 1 and unit[0][1] != 1):
            return None
        inputs = list(self.inputs)
        inputs[position] = source.view((*sizes[:2], *read[0].shape[2:]), [one[0][1] for one in loops])
        if sizes != self.sizes:
            other = inputs[1 - position]
            count, step = sizes[1], other.strides[1]
            inputs[1 - position] = other.view((*sizes[:2], *other.shape[2:]), (count * step, step, *other.strides[2:]))
        return replace(self, inputs=inputs, sizes=sizes)

    def calls(self, target: Target, n_threads: int) -> list[Call]:
        outer, inner, rows, columns = self.sizes
        if not math.prod(self.sizes):
            return []
        if self.form == BF16:
            return self._rounded_calls(n_threads)
        n_tiles = -(-rows // self.tile.rows)
        small = columns * self.depth * 4 <= _SMALL_NBYTES
        block_nbytes = _SMALL_BLOCK_NBYTES if small else _BLOCK_NBYTES
        block_tiles = max(1, min(n_tiles, block_nbytes // max(1, 4 * self.depth * self.tile.rows)))
        block_depth = self._block_depth(n_tiles)
        width = self.tile.vectors * target.lanes("float")
        nbytes = scratch_nbytes(self.tile, width, self.form, block_tiles, block_depth, self.depth)
        units = outer * inner * n_tiles * -(-columns // width)
        return [self._call("gemm", block_tiles, block_depth, nbytes, n_threads, units, _FLOP_NS)]

    def _block_depth(self, n_tiles: int) -> int:
        if self.form in CODES.values():
            # numbers stay in the first cache between being made and being read, or serve many tiles
            block = self.inputs[1].shape[-1]
            return max(1, (_DECODED_DEPTH if n_tiles <= _FEW_TILES else _BLOCK_DEPTH) // block) * block
        if n_tiles <= _FEW_TILES and self.form not in (ROWS, COLUMNS):
            return max(1, self.depth)
        return -(-self.depth // max(1, -(-self.depth // _BLOCK_DEPTH))) or 1

    def _rounded_calls(self, n_threads: int) -> list[Call]:
        from distort.kernels.compiler.codegen import gemm_bf16

        outer, inner, rows, columns = self.sizes
        n_tiles, n_panels = -(-rows // gemm_bf16.SIDE), -(-columns // gemm_bf16.SIDE)
        most = max(1, _BLOCK_NBYTES // (2 * gemm_bf16.SIDE * max(1, self.depth)))
        # blocks are smaller where there would be few units
        block_tiles = max(1, min(most, n_tiles, outer * inner * n_tiles * n_panels // _SOME_UNITS))
        units = outer * inner * -(-n_tiles // block_tiles) * n_panels
        nbytes = gemm_bf16.scratch_nbytes(block_tiles, self.depth)
        return [self._call("gemm_bf16", block_tiles, self.depth, nbytes, n_threads, units, _ROUNDED_FLOP_NS)]

    def _call(
        self,
        family: str,
        block_tiles: int,
        block_depth: int,
        nbytes: int,
        n_threads: int,
        units: int,
        flop_ns: float,
    ) -> Call:
        outer, inner, rows, columns = self.sizes
        a, b, *others = self.inputs
        nbytes = -(-nbytes // ALIGNMENT) * ALIGNMENT
        line = {ROWS: b.strides[2], COLUMNS: b.strides[3], DOTS: b.strides[3]}.get(self.form, 0)
        line = b.shape[-1] if self.form in (*CODES.values(), *FEW_CODES.values()) else line
        words: list[Word] = [rows, columns, self.depth, outer, inner, block_tiles, block_depth, Scratch(), nbytes]
        words += [a.address(), a.strides[2], a.strides[3], a.strides[0], a.strides[1]]
        words += [b.address(), line, b.strides[0], b.strides[1]]
        ways: list[int] = []
        for tensor in [*others, *self.outputs]:
            strides = self._strides(tensor)
            assert strides is not None
            words += [tensor.address(), strides[2], strides[0], strides[1]]
            ways.append(BROADCAST if strides[3] == 0 or (columns == 1 and len(ways) < len(others)) else CONTIGUOUS)
        gemm = Gemm(self.tile, self.form, a.element, b.element, self.expression, tuple(ways[: len(others)]))
        flop = 2 * math.prod(self.sizes) * self.depth
        read = outer * inner * columns * self.depth * b.dtype.itemsize
        n_tiles = -(-rows // self.tile.rows)
        return Call(
            Key(family, (tuple(self.tile), *gemm[1:])),
            words,
            flop * flop_ns + read * _BYTE_NS / max(1, n_tiles) + _STEP_NS,
            scratch_nbytes=nbytes * n_threads,
            most_threads=units,
        )


def multiply(b: Builder, left: Tensor, right: Tensor, *, exact: bool = False) -> Tensor | None:
    """left [..., rows, depth] · right [..., depth, columns], batches broadcast. None where it is not done here.

    ``exact``: operands aren't rounded where a GPU may round those of products: this is none to the user.
    """
    if b.multiplies is not None:
        return b.multiplies(b, left, right, exact=exact)
    if left.dtype != right.dtype or name_of(left.dtype) not in DTYPES or left.shape[-1] != right.shape[-2]:
        return None
    left, right = b.plain(left), b.plain(right)
    rows, depth, columns = left.shape[-2], left.shape[-1], right.shape[-1]
    batch = _broadcast(left.shape[:-2], right.shape[:-2])
    if batch is None:
        return None
    if columns == 1 and rows > 1:
        # one row of a wide matrix, instead of a panel of which one column is wanted
        made = multiply(b, _transposed(right), _transposed(left))
        return None if made is None else made.reshaped((*batch, rows, 1))
    result = b.new(left.dtype, (*batch, rows, columns))
    left = half.widened(b, left)
    if rows > _NARROW_ROWS:
        right = half.widened(b, right) if right.value is None else right
    if math.prod(right.shape[:-2]) == 1 and math.prod(batch) > 1:
        folded = strides_after(left, (math.prod(batch) * rows, depth)) if left.shape[:-2] == batch else None
        if folded is not None:
            # one matrix on the right: all rows of all products are those of one
            left, rows, batch = left.view((math.prod(batch) * rows, depth), folded), math.prod(batch) * rows, ()
            right = _single(right)
    tile, form = tile_of(b.target, columns), PACKED
    if right.value is None:
        form = ROWS if right.strides[-1] == 1 or columns == 1 else COLUMNS
        if form == COLUMNS and right.strides[-2] != 1 and depth != 1:
            right, form = b.contiguous(right), ROWS
        if form == ROWS and columns == 1 and right.strides[-1] != 1:
            right = right.view(right.shape, (*right.strides[:-1], 1))
        if form == COLUMNS and rows <= _FEW_ROWS and (left.strides[-1] == 1 or depth == 1):
            form, tile = DOTS, Tile(_FEW_ROWS, 1)
        packed = right
        tail = right.shape[-2:]
    elif b.precision == "bf16" and left.strides[-1] == 1 and _has_bf16_tiles(b.target):
        packed, side = _paired(b, right)
        form, tile = BF16, Tile(side, side // b.target.lanes("float"))
        tail = packed.shape[-4:]
    else:
        packed = _packed(b, right, tile, wide=rows > _NARROW_ROWS)
        tail = packed.shape[-3:]
    return _add(b, left, packed, len(tail), batch, result, (rows, columns, depth), tile, form) or multiply(
        # no two loops go through all products as the operands lie: these are written out
        b,
        *(b.contiguous(t.broadcast((*batch, *t.shape[-2:]))) for t in (left, right)),
    )


def multiply_codes(
    b: Builder, left: Tensor, columns: int, block: int, bits: int, key: Any, make: Callable[[int], Array]
) -> Tensor | None:
    """left [..., depth] · weights [depth, columns] in codes.

    ``make`` packs these in panels of a width (``codegen.codes.pack_codes``); ``key`` names what it makes.
    """
    depth = left.shape[-1]
    left = b.plain(left)
    rows = math.prod(left.shape[:-1])
    folded = strides_after(left, (rows, depth))
    if folded is None:
        left, folded = b.contiguous(left), (depth, 1)
    result = b.new(left.dtype, (*left.shape[:-1], columns))
    tile = tile_of(b.target, columns)
    width = tile.vectors * b.target.lanes("float")
    packed = b.packed(("codes", width, key), lambda: make(width))
    form = CODES[bits]
    if rows <= _FEW_ROWS and depth % block == 0:
        form, tile = FEW_CODES[bits], Tile(_FEW_ROWS, tile.vectors)
    operand = packed.view((*packed.shape[:2], block), (0, 0, 0))
    matrix = left.view((rows, depth), folded)
    return _add(b, matrix, operand, 3, (), result, (rows, columns, depth), tile, form)


def _add(
    b: Builder,
    left: Tensor,
    right: Tensor,
    n_tail: int,
    batch: tuple[int, ...],
    result: Tensor,
    sizes: tuple[int, int, int],
    tile: Tile,
    form: str,
) -> Tensor | None:
    """Add the operation. ``sizes``: rows, columns, depth. ``right``: batches, then ``n_tail`` dimensions of a matrix.

    None where batches don't go as two loops.
    """
    rows, columns, depth = sizes
    views = _views(left.shape, left.strides, right.shape, right.strides, n_tail, tuple(batch), result.strides)
    if views is None:
        return None
    loops, of_left, of_right = views
    a, operand = left.view(*of_left), right.view(*of_right)
    shape = (loops[0], loops[1], rows, columns)
    b.add(Product([a, operand], [result], shape, depth, tile, form, of_sums(name_of(result.dtype))))
    return result


_View = tuple[tuple[int, ...], tuple[int, ...]]


@functools.lru_cache(4096)
def _views(
    left: tuple[int, ...],
    left_strides: tuple[int, ...],
    right: tuple[int, ...],
    right_strides: tuple[int, ...],
    n_tail: int,
    batch: tuple[int, ...],
    result_strides: tuple[int, ...],
) -> tuple[tuple[int, ...], _View, _View] | None:
    """Two loops over products, and the operands' shapes and strides in these. None where it takes more loops."""
    rank = len(batch)
    steps = [
        repeating(left, left_strides, rank + 2),
        repeating(right, right_strides, rank + n_tail),
        result_strides,
    ]
    loops, strides = _at_most_two(batch, [s[:rank] for s in steps])
    if len(loops) > 2:
        return None
    missing = 2 - len(loops)
    loops, strides = [1] * missing + [*loops], [[0] * missing + [*s] for s in strides]
    of_left = (*loops, *left[-2:]), (*strides[0], *left_strides[-2:])
    of_right = (*loops, *right[-n_tail:]), (*strides[1], *right_strides[-n_tail:])
    return tuple(loops), of_left, of_right


def _at_most_two(batch: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Loops over products: as they are where that will do, for what joins may not go through them as through one."""
    kept = [i for i, size in enumerate(batch) if size != 1]
    if len(kept) > 2:
        return merged(batch, strides)
    return [batch[i] for i in kept], [[s[i] for i in kept] for s in strides]


def _broadcast(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...] | None:
    try:
        return broadcast_shape(tuple(one), tuple(other))
    except ValueError:
        return None


def _transposed(tensor: Tensor) -> Tensor:
    n = len(tensor.shape)
    return tensor.permuted([*range(n - 2), n - 1, n - 2])


def _single(tensor: Tensor) -> Tensor:
    """A matrix without its batches of one."""
    made = tensor.view(tensor.shape[-2:], tensor.strides[-2:])
    made.value = None if tensor.value is None else tensor.value.reshape(tensor.shape[-2:])
    return made


def _packed(b: Builder, matrix: Tensor, tile: Tile, wide: bool) -> Tensor:
    """Panels of a known matrix [..., depth, columns]: packed once for all shapes of runs, ``wide`` as float32."""
    value = matrix.value
    assert value is not None
    width = tile.vectors * b.target.lanes("float")
    dtype = value.dtype if not wide else np.dtype(np.float32)
    key = ("panels", width, name_of(dtype), b.identity(value))
    return b.packed(key, lambda: pack_panels(value.astype(dtype, copy=False), width))


def _has_bf16_tiles(target: Target) -> bool:
    from distort.kernels.compiler.codegen import gemm_bf16

    return gemm_bf16.has_bf16_tiles(target)


def _paired(b: Builder, matrix: Tensor) -> tuple[Tensor, int]:
    """The same rounded to bfloat16, with lines in pairs: [..., panels, depth / 2, width, 2]; and the side of a tile."""
    from distort.kernels.compiler.codegen import gemm_bf16

    value = matrix.value
    assert value is not None
    made = b.packed(("pairs", *b.identity(value)), lambda: pack_pairs(value, gemm_bf16.SIDE, gemm_bf16.DEPTH))
    return made, gemm_bf16.SIDE


__all__ = ["DTYPES", "Product", "multiply", "multiply_codes", "tile_of"]
