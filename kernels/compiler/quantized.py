"""Products of 8-bit matrices as operations: weights prepared once, epilogues absorbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from distort.kernels.compiler.codegen import byte_dots as dots
from distort.kernels.compiler.codegen.maps import BROADCAST, CONTIGUOUS
from distort.kernels.compiler.codegen.quantized_sums import TILE_DEPTH, TILE_ROWS, Product, scratch_nbytes
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.expression import Expression, identity
from distort.kernels.compiler.fuse import aligned, compose
from distort.kernels.compiler.ir import Array, Buffer, Call, Map, Operation, Scratch, Tensor, strides_of
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.loops import merged

if TYPE_CHECKING:
    from distort.kernels.compiler.builder import Builder

#: rows from which on AMX's tiles are worth their loading and storing
LEAST_TILE_ROWS = 6
#: panels that stay in the second cache
_BLOCK_NBYTES = 3 << 18
#: products of 8 bits in a nanosecond, about: tiles, dot products by vector width, pairs
_TILES_PER_NS, _DOTS_PER_NS_AND_BYTE = 800.0, 4.0


#: an epilogue that leaves sums as they are
SUMS = identity("int32")


class Weights(NamedTuple):
    """Prepared weights of a product: int8 panels, and int32 terms and zero points by column."""

    panels: Tensor
    terms: Tensor
    zeros: Tensor | None
    depth: int
    columns: int
    groups: int
    vectors: int


def best_vectors(columns: int, lanes: int, target: Target) -> int:
    """Vectors of a panel: as many as registers like, with few that are not needed."""
    most = 4 if target.n_vector_registers == 32 else 2
    needed = -(-columns // lanes)
    return min(range(1, most + 1), key=lambda n: (-(-needed // n) * n * (1 + 0.08 * (most - n)), -n))


def best_rows(vectors: int, target: Target, mode: str) -> int:
    spare = 2 if mode != dots.PAIRS else 4
    return max(1, min(8, (target.n_vector_registers - vectors - spare) // vectors))


def signed_weights(w: Array, zeros: Array | None) -> tuple[Array, Array | None]:
    """(int8, int32 zero points or None where all are 0) of weights of either sign."""
    zeros = None if zeros is None else zeros.astype(np.int32)
    if w.dtype == np.uint8:
        w = (w ^ np.uint8(0x80)).view(np.int8)
        zeros = (np.zeros((), np.int32) if zeros is None else zeros) - 128
    return w, zeros if zeros is not None and zeros.any() else None


def prepare_weights(builder: Builder, w: Tensor, zeros: Tensor | None) -> Weights:
    """Of known int8 or uint8 weights [depth, columns], zero points of one or ``columns`` elements."""
    target = builder.target
    depth, columns = w.shape
    lanes, group = target.lanes("i32"), dots.group_of(dots.mode_of(target))
    vectors = best_vectors(columns, lanes, target)
    width = lanes * vectors
    multiple = TILE_DEPTH if dots.has_tiles(target) else group
    groups = -(-depth // multiple) * multiple // group
    n_panels = -(-columns // width)
    assert w.value is not None
    value = w.value
    zero_values = None if zeros is None else zeros.value

    def panels() -> Array:
        signed, _ = signed_weights(value, None)
        whole = np.zeros((groups * group, n_panels * width), np.int8)
        whole[:depth, :columns] = signed
        return whole.reshape(groups, group, n_panels, width).transpose(2, 0, 3, 1)

    def terms() -> Array:
        signed, zero = signed_weights(value, zero_values)
        sums = np.zeros(n_panels * width, np.int32)
        sums[:columns] = signed.sum(axis=0, dtype=np.int32)
        if zero is not None:
            sums[:columns] -= depth * zero
        return sums

    def by_column() -> Array:
        _, zero = signed_weights(value, zero_values)
        made = np.zeros(n_panels * width, np.int32)
        made[:columns] = np.asarray(zero)
        return made

    name = (builder.identity(value), None if zero_values is None else builder.identity(zero_values))
    _, some_zeros = signed_weights(value[:1], zero_values)
    return Weights(
        builder.packed(("quantized panels", name[0], width, groups, group), panels),
        builder.packed(("quantized terms", *name, width), terms),
        None if some_zeros is None else builder.packed(("quantized zeros", *name, width), by_column),
        depth,
        columns,
        groups,
        vectors,
    )


def placeholder(shape: Sequence[int]) -> Tensor:
    """Stands for the sums among an epilogue's inputs."""
    return Tensor(np.dtype(np.int32), tuple(shape), strides_of(shape), Buffer(0))


@dataclass(frozen=True, slots=True)
class Loops:
    """How a product goes through its rows: ``outer`` × ``inner`` × ``rows``, and strides for each of its tensors."""

    sizes: tuple[int, int, int]
    strides: tuple[tuple[int, int, int], ...]
    ways: tuple[int, ...]


def loops_of(shape: Sequence[int], tensors: Sequence[Tensor]) -> Loops | None:
    """Loops over all but the last dimension. None where there are more than three, or columns are not next to
    each other."""
    ways = []
    for tensor in tensors:
        way = CONTIGUOUS if shape[-1] == 1 else {0: BROADCAST, 1: CONTIGUOUS}.get(tensor.strides[-1])
        if way is None or tensor.block or tensor.shape != tuple(shape):
            return None
        ways.append(way)
    sizes, strides = merged(shape[:-1], [t.strides[:-1] for t in tensors])
    if len(sizes) > 3:
        return None
    missing = 3 - len(sizes)
    outer, inner, rows = [1] * missing + sizes
    padded = [tuple([0] * missing + list(one)) for one in strides]
    return Loops((outer, inner, rows), tuple(padded), tuple(ways))  # type: ignore[arg-type]  # of three


@dataclass(eq=False)
class QuantizedProduct(Operation):
    """Rows [..., depth] of int8 or uint8 · weights, then an epilogue.

    ``inputs``: the rows, the zero point where it is a tensor, further inputs of the epilogue. ``rows`` is a view of
    the first in the shape of the result: where each row begins.
    """

    weights: Weights
    rows: Tensor
    zero: Tensor | None = None
    epilogue: Expression = SUMS
    operands: tuple[Tensor, ...] = ()
    kind: ClassVar[str] = "quantized"

    def calls(self, target: Target, n_threads: int) -> list[Call]:
        (result,) = self.outputs
        a, weights = self.rows, self.weights
        loops = loops_of(result.shape, [a, *self.operands, result])
        assert loops is not None
        outer, inner, rows = loops.sizes
        mode = dots.mode_of(target)
        dtype = str(a.dtype)
        flip = dots.must_flip(mode, dtype)
        tile_rows = 1 if rows == 1 else best_rows(weights.vectors, target, mode)
        if dots.has_tiles(target) and rows >= LEAST_TILE_ROWS:
            mode, flip = dots.TILES, False
            tile_rows = TILE_ROWS if rows <= TILE_ROWS else 2 * TILE_ROWS
        product = Product(
            tile_rows,
            weights.vectors,
            mode,
            (dtype == "int8") != flip,
            True,
            flip=flip,
            rest=0 if mode == dots.TILES else weights.depth % dots.group_of(mode),
            zero="" if self.zero is None else str(self.zero.dtype),
            offset=(128 if dtype == "int8" else -128) if flip else 0,
            has_weight_zeros=weights.zeros is not None,
            epilogue=self.epilogue,
            ways=loops.ways[1:-1],
        )
        lanes = target.lanes("i32")
        nbytes = -(-scratch_nbytes(product, lanes, weights.groups) // 64) * 64
        a_outer, a_inner, a_row = loops.strides[0]
        words: list[Any] = [rows, weights.columns, weights.depth, weights.groups, outer, inner]
        words += [Scratch(), nbytes, a.address(), a_row, a_outer, a_inner, weights.panels.address(), 0, 0]
        zeros = weights.zeros or weights.terms
        words += [(self.zero or weights.terms).address(), weights.terms.address(), zeros.address()]
        words.append(max(1, _BLOCK_NBYTES // (weights.groups * 4 * weights.vectors * lanes)))
        for tensor, (of_outer, of_inner, of_row) in zip([*self.operands, result], loops.strides[1:], strict=True):
            words += [tensor.address(), of_row, of_outer, of_inner]
        n_units = outer * inner * -(-rows // tile_rows) * -(-weights.columns // (weights.vectors * lanes))
        work = work_ns(outer * inner * rows * weights.columns * weights.depth, mode, target)
        work += weights.columns * weights.depth / 30  # weights come from memory
        return [Call(Key("quantized", tuple(product)), words, work, nbytes * n_threads, n_units)]

    def absorb(self, after: Map, position: int, target: Target) -> Operation | None:
        del position, target
        (result,) = after.outputs
        rows = self.rows
        if result.shape != rows.shape:
            rows = aligned(rows, result.shape)
        made = self.outputs[0]
        joined = absorbed(self.epilogue, self.operands, after, made)
        if joined is None or loops_of(result.shape, [rows, *joined[0], result]) is None:
            return None
        operands, expression = joined
        fixed = self.inputs[: 1 + (self.zero is not None)]
        return QuantizedProduct(
            [*fixed, *operands], after.outputs, self.weights, rows, self.zero, expression, tuple(operands)
        )


def work_ns(n_products: int, mode: str, target: Target) -> float:
    if mode == dots.TILES:
        return n_products / _TILES_PER_NS
    return n_products / (_DOTS_PER_NS_AND_BYTE * target.vector_nbytes) * (8 if mode == dots.PAIRS else 1)


def absorbed(
    epilogue: Expression, operands: Sequence[Tensor], after: Map, made: Tensor
) -> tuple[list[Tensor], Expression] | None:
    """An epilogue with ``after`` done to its result ``made``: further operands, all in the shape of ``after``, and what
    is done."""
    before = [t if t.shape == after.shape else aligned(t, after.shape) for t in [placeholder(made.shape), *operands]]
    composed = compose(epilogue, before, after.expression, after.inputs, made.buffer)
    return None if composed is None else (composed[0][1:], composed[1])
