"""Matrix products as tensor operations: how they are cut, which register tile they get, what joins them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distort.kernels.compiler import half
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.codegen.gemm import COLUMNS, DOTS, PACKED, ROWS, Gemm, scratch_nbytes
from distort.kernels.compiler.codegen.maps import BROADCAST, CONTIGUOUS
from distort.kernels.compiler.codegen.packing import pack_panels
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.tiles import Tile
from distort.kernels.compiler.expression import Expression, identity, name_of
from distort.kernels.compiler.fuse import compose
from distort.kernels.compiler.ir import (
    ALIGNMENT,
    Buffer,
    Call,
    Map,
    Operation,
    Scratch,
    Tensor,
    Word,
)
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.loops import merged
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
#: so few rows are multiplied with columns where these are
_DOT_ROWS = 4
#: up to so many rows a matrix of half precision is read as it is, by others as float32
_NARROW_ROWS = 8
#: longer sums are cut, where several tiles read a panel
_BLOCK_DEPTH, _FEW_TILES = 768, 4
_FLOP_NS, _BYTE_NS, _STEP_NS = 1 / 130, 1 / 25, 100.0


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
    form: str  # of b: PACKED, ROWS or COLUMNS
    expression: Expression
    kind: ClassVar[str] = "product"

    def _strides(self, tensor: Tensor) -> list[int] | None:
        """In the product's own dimensions; None where they don't go that way, or the columns have steps."""
        if tensor.block:
            return None
        strides = strides_after(tensor, self.sizes)
        return strides if strides is not None and (self.sizes[3] == 1 or strides[3] in (0, 1)) else None

    def absorb(self, after: Map, position: int, target: Target) -> Operation | None:
        del target
        made = self.outputs[0]
        results = [self._strides(t) for t in after.outputs]
        if any(s is None or (s[3] != 1 and self.sizes[3] != 1) for s in results):
            return None
        if any(self._strides(t) is None for t in after.inputs if t.buffer is not made.buffer):
            return None
        sums = Tensor(made.dtype, made.shape, made.strides, Buffer(0))
        composed = compose(self.expression, [sums, *self.inputs[2:]], after.expression, after.inputs, made.buffer)
        if composed is None:
            return None
        operands, expression = composed
        inputs = [*self.inputs[:2], *operands[1:]]
        return Product(inputs, list(after.outputs), self.sizes, self.depth, self.tile, self.form, expression)

    def calls(self, target: Target, n_threads: int) -> list[Call]:
        outer, inner, rows, columns = self.sizes
        if not math.prod(self.sizes):
            return []
        a, b, *others = self.inputs
        n_tiles = -(-rows // self.tile.rows)
        small = columns * self.depth * 4 <= _SMALL_NBYTES
        block_nbytes = _SMALL_BLOCK_NBYTES if small else _BLOCK_NBYTES
        block_tiles = max(1, min(n_tiles, block_nbytes // max(1, 4 * self.depth * self.tile.rows)))
        n_blocks = -(-self.depth // _BLOCK_DEPTH) if n_tiles > _FEW_TILES or self.form in (ROWS, COLUMNS) else 1
        block_depth = -(-self.depth // max(1, n_blocks)) or 1
        width = self.tile.vectors * target.lanes("float")
        n_panels = -(-columns // width)
        nbytes = scratch_nbytes(self.tile, width, self.form, block_tiles, block_depth, self.depth)
        nbytes = -(-nbytes // ALIGNMENT) * ALIGNMENT
        line = 0 if self.form == PACKED else b.strides[2] if self.form == ROWS else b.strides[3]
        words: list[Word | Scratch] = [rows, columns, self.depth, outer, inner, block_tiles, block_depth]
        words += [Scratch(), nbytes]
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
        moved = outer * inner * columns * self.depth * b.dtype.itemsize
        work_ns = flop * _FLOP_NS + moved * _BYTE_NS / max(1, n_tiles) + _STEP_NS
        most = outer * inner * n_tiles * n_panels
        return [
            Call(
                Key("gemm", (tuple(self.tile), *gemm[1:])),
                words,
                work_ns,
                scratch_nbytes=nbytes * n_threads,
                most_threads=most,
            )
        ]


def multiply(b: Builder, left: Tensor, right: Tensor) -> Tensor | None:
    """left [..., rows, depth] · right [..., depth, columns], batches broadcast. None where it is not done here."""
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
    tile = tile_of(b.target, columns)
    form = PACKED
    if right.value is None:
        form = ROWS if right.strides[-1] == 1 or columns == 1 else COLUMNS
        if form == COLUMNS and right.strides[-2] != 1 and depth != 1:
            right, form = b.contiguous(right), ROWS
        if form == ROWS and columns == 1 and right.strides[-1] != 1:
            right = right.view(right.shape, (*right.strides[:-1], 1))
        if form == COLUMNS and rows <= _DOT_ROWS and (left.strides[-1] == 1 or depth == 1):
            form, tile = DOTS, Tile(_DOT_ROWS, 1)
        packed = right
        tail = right.shape[-2:]
    else:
        packed = _packed(b, right, tile, wide=rows > _NARROW_ROWS)
        tail = packed.shape[-3:]
    steps = [left.broadcast((*batch, rows, depth)).strides, packed.broadcast((*batch, *tail)).strides, result.strides]
    sizes, strides = _at_most_two(batch, [s[: len(batch)] for s in steps])
    if len(sizes) > 2:
        return None
    missing = 2 - len(sizes)
    sizes, strides = [1] * missing + sizes, [[0] * missing + s for s in strides]
    a = left.view((*sizes, rows, depth), (*strides[0], *left.strides[-2:]))
    operand = packed.view((*sizes, *tail), (*strides[1], *packed.strides[-len(tail) :]))
    b.add(
        Product(
            [a, operand],
            [result],
            (sizes[0], sizes[1], rows, columns),
            depth,
            tile,
            form,
            identity(name_of(result.dtype)),
        )
    )
    return result


def _at_most_two(batch: Sequence[int], strides: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Loops over products: as they are where that will do, for what joins may not go through them as through one."""
    kept = [i for i, size in enumerate(batch) if size != 1]
    if len(kept) > 2:
        return merged(batch, strides)
    return [batch[i] for i in kept], [[s[i] for i in kept] for s in strides]


def _broadcast(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...] | None:
    try:
        return tuple(np.broadcast_shapes(tuple(one), tuple(other)))
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
    key = ("panels", width, dtype.name, b.identity(value))
    return b.packed(key, lambda: pack_panels(value.astype(dtype, copy=False), width))


__all__ = ["DTYPES", "Product", "multiply", "tile_of"]
