"""Row operations: softmax, normalizations, reductions. Threads of a group share a row, and groups of a block its rows.

Where elements of a row are neighbours, the threads of a group are too (a part of a warp, a warp, or the block); where
neighbours belong to different rows, neighbouring threads do as well, and a group's are a stride apart. A row is gone
through in passes, as on the CPU; what later passes need again comes from the caches, or, where it is dear to make, from
shared memory.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from distort.kernels.compiler.codegen import passes
from distort.kernels.compiler.codegen.passes import Passes
from distort.kernels.compiler.loops import merged
from distort.kernels.compiler.rows import Loops, Rows
from distort.kernels.cuda.codegen.dtypes import NBYTES
from distort.kernels.cuda.codegen.indexing import is_aligned, is_wide, overlap, size_arguments
from distort.kernels.cuda.codegen.row_text import Structure, row_kernel
from distort.kernels.cuda.launch import Argument, Launch

#: threads of a block that has many rows, of one that has one, and of the GPU that work should be there for, about
_BLOCK, _MOST_BLOCK, _THREADS = 256, 1024, 1 << 17
#: packs of a row that one thread of a group has, at least, where there are threads enough
_PACKS = 4
#: packs of a row that a thread of a warp has, at most, where rows are many
_WARP_PACKS = 8
_WARP = 32
#: bytes of a block's shared memory for kept elements, at most: several blocks are to have room, and with parts of
#: reductions (16 KiB) a block has no more than every GPU gives it
_MOST_KEPT_NBYTES = 32 * 1024
_PACK_NBYTES, _MOST_PACKED = 16, 8
#: instructions that see elements of a row in their order
_IN_ORDER = ("row_argmax", "row_argmin")


@dataclass(frozen=True, slots=True)
class _Arrangement:
    """Loops over rows, and over what is reduced; whether neighbours belong to different rows."""

    across: bool
    kept: Loops
    reduced: Loops


def row_launches(operation: Rows) -> list[Launch]:
    n_rows, length = math.prod(operation.row_shape), math.prod(operation.shape)
    if not length:
        return []
    length //= n_rows
    tensors = [*operation.inputs, *operation.outputs]
    strides = tuple([t.broadcast(operation.shape).strides for t in tensors])
    in_order = any([instruction.op in _IN_ORDER for instruction in operation.expression.body])
    itemsizes = tuple([t.dtype.itemsize for t in tensors])
    arrangement = _arranged(operation.shape, operation.axes, strides, itemsizes, in_order)
    (outer, outer_steps), (sizes, steps) = arrangement.kept, arrangement.reduced
    varies = _varies(operation, steps)
    inner = tuple(
        [own[-1] if own[-1] in (0, 1) else 2 for own in steps]
        if not arrangement.across
        else [2 if own[-1] else 0 for own in steps]
    )
    width = 1 if arrangement.across else _width(operation, arrangement, varies)
    sizes = [*sizes[:-1], sizes[-1] // width]
    n_packs = length // width
    lanes, block = _lanes(arrangement.across, n_rows, n_packs)
    n_slots = block // lanes
    split = passes.split(operation.expression, varies)
    kept_nbytes = _kept_nbytes(operation, split, n_slots * length)
    keeps = 0 < sum(kept_nbytes) <= _MOST_KEPT_NBYTES
    all_steps = [[*of_rows, *inside] for of_rows, inside in zip(outer_steps, steps, strict=True)]
    wide = is_wide([*outer, *arrangement.reduced[0]], all_steps, max(n_rows, length))
    structure = Structure(
        across=arrangement.across,
        n_outer=len(outer),
        n_inner=len(sizes),
        varies=varies,
        inner=inner,
        width=width,
        aligned=tuple([width > 1 and is_aligned(t, width) for t in tensors]),
        keeps=keeps,
        wide=wide,
        restrict=not overlap(operation.inputs, operation.outputs),
    )
    kernel = row_kernel(operation.expression, structure)
    arguments: list[Argument] = [*(t.address() for t in tensors), n_rows, length, n_packs, lanes]
    arguments += [*size_arguments(outer), *size_arguments(sizes)]
    for own_outer, own, how in zip(outer_steps, steps, inner, strict=True):
        arguments += [*own_outer, *own[:-1], *(own[-1:] if how == 2 else ())]
    if keeps:
        arguments += [sum(kept_nbytes[:position]) for position in range(len(kept_nbytes))]
    nbytes = sum(kept_nbytes) if keeps else 0
    return [Launch(kernel, arguments, n_rows * lanes, block, nbytes, -(-n_rows // n_slots))]


def _varies(operation: Rows, steps: Sequence[Sequence[int]]) -> tuple[bool, ...]:
    """Whether inputs, then results, go along the row. Results of elements do even where that is one."""
    n_inputs = len(operation.inputs)
    varies = [any(own) for own in steps]
    split = passes.split(operation.expression, (*varies[:n_inputs], *(False for _ in operation.outputs)))
    for position, number in enumerate(operation.expression.results):
        varies[n_inputs + position] |= not split.per_row[number]
    return tuple(varies)


@functools.lru_cache(1024)
def _arranged(
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    strides: tuple[tuple[int, ...], ...],
    itemsizes: tuple[int, ...],
    in_order: bool,
) -> _Arrangement:
    by_stride = strides[0] if any(strides[0]) else strides[-1]
    order = sorted(range(len(shape)), key=lambda axis: -by_stride[axis])
    reduced = [axis for axis in (axes if in_order else order) if axis in axes]
    kept = [axis for axis in order if axis not in axes]
    inside = merged([shape[a] for a in reduced], [[s[a] for a in reduced] for s in strides])
    outside = merged([shape[a] for a in kept], [[s[a] for a in kept] for s in strides])

    def strided(loops: Loops) -> int:
        """Bytes of operands that are no neighbours."""
        return sum(size for size, steps in zip(itemsizes, loops[1], strict=True) if steps[-1] not in (0, 1))

    across = inside[0][-1] > 1 and outside[0][-1] > 1 and strided(inside) > strided(outside)
    return _Arrangement(across, outside, inside)


def _width(operation: Rows, arrangement: _Arrangement, varies: Sequence[bool]) -> int:
    """Elements of a pack: as many as all operands have next to each other."""
    tensors = [*operation.inputs, *operation.outputs]
    packed = []
    for position, tensor in enumerate(tensors):
        steps = arrangement.reduced[1][position]
        if not varies[position] or steps[-1] == 0:
            continue
        if steps[-1] != 1:
            return 1
        packed.append((tensor, [*arrangement.kept[1][position], *steps[:-1]]))
    if not packed or arrangement.reduced[0][-1] == 1:
        return 1
    width = min(_MOST_PACKED, _PACK_NBYTES // max(t.dtype.itemsize for t, _ in packed))
    return math.gcd(width, arrangement.reduced[0][-1], *(step for _, steps in packed for step in steps))


def _lanes(across: bool, n_rows: int, n_packs: int) -> tuple[int, int]:
    """Threads of a group, and of a block; both powers of two."""
    lanes = 1
    if across:
        while lanes < _WARP and n_rows * lanes < _THREADS and lanes * _PACKS <= n_packs:
            lanes *= 2
        return lanes, max(_BLOCK, _WARP * lanes)
    # a warp for a row of a few packs a thread: nobody waits for a block
    few = n_packs <= _WARP * _WARP_PACKS and n_rows * _WARP * _PACKS >= _THREADS
    most = _WARP if few else _MOST_BLOCK
    # with one pack a thread at first; with more where rows are so many that threads would be too
    while lanes < min(n_packs, most):
        lanes *= 2
    while lanes > _WARP and lanes * _PACKS > n_packs and n_rows * lanes > _THREADS:
        lanes //= 2
    return lanes, lanes if lanes > _WARP else _BLOCK


def _kept_nbytes(operation: Rows, split: Passes, n_elements: int) -> list[int]:
    """Of shared memory for each kept element of so many."""
    dtypes = [passes.kept_dtype(operation.expression, number) for number in split.kept]
    return [-(-n_elements * NBYTES[dtype] // 16) * 16 for dtype in dtypes]


__all__ = ["row_launches"]
