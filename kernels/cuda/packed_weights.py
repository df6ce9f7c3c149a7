"""Known weights of 4 or 8 bits by blocks, between DequantizeLinear and a product: they stay packed on the GPU.

They are unpacked in each run, into the slab; where a product is of few rows, it reads the codes instead, as MatMulNBits
does, and what was to unpack them is left out again (``without_unread``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distort.graph.ir import Graph, Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Array, Buffer, Operation, Place, Tensor
from distort.kernels.cuda.codegen.nbits import MOST_ROWS
from distort.kernels.cuda.operations import CudaNBits, CudaUnpack

#: elements from which on that pays
LEAST_SIZE = 1 << 16
_PRODUCTS = ("MatMul", "Gemm")
_BITS = {"int4": 4, "uint4": 4, "int8": 8, "uint8": 8}


@dataclass(frozen=True, slots=True)
class Packed:
    """Of weights [columns, depth]. ``parts``: codes, scales, and zero points where there are: see ``CudaNBits``."""

    parts: tuple[Tensor, ...]
    bits: int
    block_size: int


def packed_of(b: Builder) -> dict[Buffer, Packed] | None:
    """What a builder knows of weights that an operation of its unpacks; None for a builder of no GPU's."""
    found: dict[Buffer, Packed] | None = getattr(b, "packed_weights", None)
    return found


def unpacked(
    b: Builder, node: Node, x: Tensor, scale: Tensor, zero: Tensor | None, axis: int, block_size: int
) -> Tensor | None:
    """Known x [depth, columns], dequantized by blocks of an axis, or [columns, depth]. None where that doesn't pay."""
    known, bits = packed_of(b), _BITS.get(x.element)
    if known is None or bits is None or len(x.shape) != 2 or x.size < LEAST_SIZE or not -2 <= axis < 2:
        return None
    axis %= 2
    depth, columns = x.shape[axis], x.shape[1 - axis]
    if block_size < 16 or block_size & (block_size - 1) or depth % block_size or not _is_multiplied(b, node):
        return None
    value, scales, zeros = x.value, scale.value, None if zero is None else zero.value
    if value is None or scales is None or (zero is not None and zeros is None):
        return None
    middle = 0 if x.element.startswith("u") else 1 << (bits - 1)
    n_blocks = depth // block_size

    def by_columns(array: Array) -> Array:
        return array.T if axis == 0 else array

    def codes() -> Array:
        whole = _packed((by_columns(value).astype(np.int16) + middle).astype(np.uint8), bits)
        return whole.reshape(columns, n_blocks, block_size * bits // 8)

    def points() -> Array:
        plain = np.zeros((columns, n_blocks), np.int16) if zeros is None else by_columns(zeros).astype(np.int16)
        return _packed((plain + middle).astype(np.uint8), bits)

    name = ("unpacked in runs", axis, block_size, b.identity(value), b.identity(scales))
    parts = [b.packed((*name, "codes"), codes), b.packed((*name, "scales"), lambda: by_columns(scales))]
    if zeros is not None or not middle:
        of_zeros = None if zeros is None else b.identity(zeros)
        parts.append(b.packed((*name, "zeros", of_zeros), points))
    weights = b.new(scale.dtype, (columns, depth))
    b.add(CudaUnpack(list(parts), [weights], bits, block_size, len(parts) > 2))
    known[weights.buffer] = Packed(tuple(parts), bits, block_size)
    return weights.permuted((1, 0)) if axis == 0 else weights


def _packed(codes: Array, bits: int) -> Array:
    """Of uint8 [rows, n]: two a byte where they have 4 bits, the first below."""
    if bits == 8:
        return codes
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    return np.asarray(codes[:, ::2] | codes[:, 1::2] << 4)


def _is_multiplied(b: Builder, node: Node) -> bool:
    """Whether a node's result is nothing but the second operand of products."""
    readers: dict[str, list[tuple[Node, int]]] = b.once(("readers", id(b.graph)), lambda: _readers(b.graph))

    def only(name: str) -> bool:
        found = readers.get(name, [])
        return bool(found) and name not in b.graph.outputs and all(taken(*reader) for reader in found)

    def taken(reader: Node, position: int) -> bool:
        if reader.domain or (reader.op_type == "Transpose" and position == 0):
            return not reader.domain and only(reader.outputs[0])
        return reader.op_type in _PRODUCTS and position == 1

    return only(node.outputs[0])


def _readers(graph: Graph) -> dict[str, list[tuple[Node, int]]]:
    found: dict[str, list[tuple[Node, int]]] = {}
    for node in graph.nodes:
        for position, name in enumerate(node.inputs):
            found.setdefault(name, []).append((node, position))
        for name in node.captured():
            found.setdefault(name, []).append((node, -1))
    return found


def by_codes(b: Builder, left: Tensor, right: Tensor) -> Tensor | None:
    """left [..., rows, depth] · right [depth, columns], which is unpacked, of few rows. None for others."""
    packed = (packed_of(b) or {}).get(right.buffer)
    if packed is None or len(right.shape) != 2 or right.dtype != left.dtype:
        return None
    depth, columns = right.shape
    if right.strides != (1, depth) or not left.size or left.size > MOST_ROWS * depth:
        return None
    made = b.new(left.dtype, (*left.shape[:-1], columns))
    operands = [b.contiguous(b.plain(left)), *packed.parts]
    b.add(CudaNBits(operands, [made], packed.bits, packed.block_size, len(packed.parts) > 2, False))
    return made


def without_unread(operations: Sequence[Operation]) -> list[Operation]:
    """Without what unpacks weights that nothing reads."""
    read = {tensor.buffer for operation in operations for tensor in operation.inputs}
    return [
        operation
        for operation in operations
        if not isinstance(operation, CudaUnpack)
        or operation.outputs[0].buffer in read
        or operation.outputs[0].buffer.place is not Place.ARENA
    ]


__all__ = ["LEAST_SIZE", "Packed", "by_codes", "unpacked", "without_unread"]
