"""Products with weights of few bits as operations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.codegen import nbits_bytes
from distort.kernels.compiler.codegen.byte_dots import MIXED, SIGNED, mode_of
from distort.kernels.compiler.codegen.nbits import Nbits, scratch_nbytes
from distort.kernels.compiler.codegen.packing import aligned
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.expression import Expression, identity
from distort.kernels.compiler.fuse import aligned as as_in
from distort.kernels.compiler.fuse import compose
from distort.kernels.compiler.ir import ALIGNMENT, Array, Buffer, Call, Map, Operation, Scratch, Tensor
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.quantized import loops_of
from distort.kernels.ops.contrib_matmul import unpacked

#: an epilogue that leaves sums as they are
SUMS = identity("float32")
#: vectors of a panel
_VECTORS = 2
#: rows of a tile, at most, by the number of registers
_ROWS = {32: 10, 16: 4}
_PRODUCTS_PER_NS, _BYTES_PER_NS = 40.0, 10.0
#: elements of a block whose sum, of bytes, stays within 32 bits
_MOST_BYTES = 512


@dataclass(eq=False)
class NbitsProduct(Operation):
    """``inputs``: a [..., depth]; the epilogue's further inputs. ``rows``: where each row begins, in the shape of the
    result."""

    rows: Tensor
    weights: Tensor
    scales: Tensor
    zeros: Tensor | None
    bits: int
    n_blocks: int
    block_size: int
    by_bytes: bool = False  # see ``codegen.nbits_bytes``
    epilogue: Expression = SUMS
    kind: ClassVar[str] = "nbits"

    def calls(self, target: Target, n_threads: int) -> list[Call]:
        (result,) = self.outputs
        operands = self.inputs[1:]
        loops = loops_of(result.shape, [self.rows, *operands, result])
        assert loops is not None and loops.sizes[:2] == (1, 1)
        n_rows, columns = loops.sizes[2], result.shape[-1]
        most = _ROWS[32 if target.n_vector_registers >= 32 else 16]
        tile_rows = -(-n_rows // -(-n_rows // most))
        tile_rows += tile_rows % 2 if n_rows > 1 else 0
        nbits = Nbits(tile_rows, _VECTORS, self.bits, self.zeros is not None, self.epilogue, loops.ways[1:-1])
        lanes = target.lanes("float")
        nbytes = scratch_nbytes(nbits, lanes, self.n_blocks)
        if self.by_bytes:
            nbytes = nbits_bytes.scratch_nbytes(nbits, lanes, self.n_blocks, self.n_blocks * self.block_size)
        nbytes = -(-nbytes // ALIGNMENT) * ALIGNMENT
        words: list[Any] = [n_rows, columns, self.n_blocks, self.block_size * self.bits // 32]
        words += [self.rows.address(), loops.strides[0][2], self.weights.address(), self.scales.address()]
        words += [(self.zeros or self.scales).address(), Scratch(), nbytes]
        for tensor, (_, _, row) in zip([*operands, result], loops.strides[1:], strict=True):
            words += [tensor.address(), row, 0, 0]
        work = n_rows * columns * self.n_blocks * self.block_size / _PRODUCTS_PER_NS
        work = max(work, self.weights.nbytes / _BYTES_PER_NS)
        units = -(-n_rows // tile_rows) * -(-columns // (_VECTORS * lanes))
        family = "nbits_bytes" if self.by_bytes else "nbits"
        return [Call(Key(family, tuple(nbits)), words, work, nbytes * n_threads, units)]

    def absorb(self, after: Map, position: int, target: Target) -> Operation | None:
        del position, target
        made = self.outputs[0]
        if len(after.outputs) != 1:
            return None
        (result,) = after.outputs
        sums = Tensor(made.dtype, made.shape, made.strides, Buffer(0))
        before = [t if t.shape == after.shape else as_in(t, after.shape) for t in [sums, *self.inputs[1:]]]
        composed = compose(self.epilogue, before, after.expression, after.inputs, made.buffer)
        if composed is None:
            return None
        rows = self.rows if self.rows.shape == after.shape else as_in(self.rows, after.shape)
        operands, expression = composed
        loops = loops_of(result.shape, [rows, *operands[1:], result])
        if loops is None or loops.sizes[:2] != (1, 1):
            return None
        inputs = [self.inputs[0], *operands[1:]]
        return replace(self, inputs=inputs, outputs=after.outputs, rows=rows, epilogue=expression)


def can_be_bytes(target: Target, rows: int, bits: int, block_size: int) -> bool:
    """Whether a row in half precision or less may be multiplied as bytes are."""
    modes = {4: (MIXED, SIGNED), 8: (MIXED,)}
    return rows == 1 and mode_of(target) in modes[bits] and block_size <= _MOST_BYTES


def multiply(
    b: Builder,
    a: Tensor,
    packed: Array,
    scales: Array,
    zeros: Array | None,
    bits: int,
    block_size: int,
    name: Any,
    by_bytes: bool = False,
) -> Tensor | None:
    """a [..., depth] float32, of contiguous rows, · weights as MatMulNBits has them: ``packed`` uint8 [columns, blocks,
    bytes], scales float32 [columns, blocks], zeros: float32, in the same shape, less the middle; None where they are
    all in the middle. ``name`` says what these are made of; ``by_bytes``: see ``codegen.nbits_bytes``."""
    columns, n_blocks = scales.shape
    lanes = b.target.lanes("float")
    width = _VECTORS * lanes
    n_panels = -(-columns // width)
    fields = 32 // bits

    def weights() -> Array:
        numbers = unpacked(np, packed.reshape(columns, -1), bits)
        if not by_bytes:
            numbers = numbers ^ np.uint8(1 << (bits - 1))  # signed
        whole = np.zeros((n_panels * width, n_blocks * block_size), np.uint32)
        whole[:columns] = numbers
        places = np.arange(0, 32, bits, dtype=np.uint32)
        if by_bytes:
            places = places.reshape(4, -1).T.reshape(-1)  # the first four in the low halves of bytes
        parts = whole.reshape(n_panels, width, -1, fields) << places
        words = np.bitwise_or.reduce(parts, axis=3)  # [panels, width, groups]
        made = aligned((n_panels, words.shape[2], width), np.uint32)
        made[...] = words.swapaxes(1, 2)
        return made.view(np.int32)

    def by_block(values: Array) -> Array:
        whole = np.zeros((n_panels * width, n_blocks), np.float32)
        whole[:columns] = values
        return np.ascontiguousarray(whole.reshape(n_panels, width, n_blocks).swapaxes(1, 2))

    words = b.packed(("nbits", name, width, by_bytes), weights)
    of_scales = b.packed(("nbits scales", name, width), lambda: by_block(scales))
    of_zeros = None if zeros is None else b.packed(("nbits zeros", name, width), lambda: by_block(-zeros * scales))
    shape = (*a.shape[:-1], columns)
    rows = a.view(shape, (*a.strides[:-1], 0))
    result = b.new(np.float32, shape)
    loops = loops_of(shape, [rows, result])
    if loops is None or loops.sizes[:2] != (1, 1):
        return None
    b.add(NbitsProduct([a], [result], rows, words, of_scales, of_zeros, bits, n_blocks, block_size, by_bytes))
    return result
