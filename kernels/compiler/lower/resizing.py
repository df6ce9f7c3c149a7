"""Resize and Upsample: the last two axes in one kernel, others one after another."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen.resize import slot_elements
from distort.kernels.compiler.ir import Array, Call, Native, Scratch, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.layout import in_blocks, memory
from distort.kernels.compiler.loops import merged
from distort.kernels.compiler.lower.gathering import CHUNK, element_of
from distort.kernels.errors import KernelError
from distort.kernels.ops.resize import Method, ResizedAxis, method_of, nearest_indices, plans_of, weights_of

Result = list[Tensor | None] | None

#: sums of so many terms are written out
_MOST_TAPS = 4
_NEAREST_NS, _TAP_NS = 0.3, 0.4


@lowers("Resize", "Upsample", blocks=True, wide=True)
def _resize(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x = inputs[0]
    assert x is not None
    if any(t is not None and t.value is None for t in inputs[1:]):
        return None
    known: list[Any] = [None if t is None else t.value for t in inputs[1:]]
    try:
        plans, method = of_node(node, np.broadcast_to(np.zeros((), x.dtype), x.shape), known)
    except KernelError:
        return None
    active = [a for a, plan in enumerate(plans) if plan.scale != 1 or plan.roi not in (None, (0.0, 1.0))]
    if not active:
        return [x]
    if 0 in (plan.out for plan in plans):
        return [b.new(x.dtype, [plan.out for plan in plans])]
    axes = {axis: plans[axis] for axis in active}
    if x.block and len(x.shape) == 4 and {2, 3}.issuperset(axes):
        made = _in_pixels(b, x, axes, method)
        if made is not None:
            return [made]
    if method.mode == "nearest":
        return _nearest(b, b.plain(x), axes, method)
    return _weighted(b, b.plain(x), axes, method) if x.element == "float32" else None


def of_node(node: Node, x: Array, known: list[Any]) -> tuple[list[ResizedAxis], Method]:
    """How each axis is resized, and the method. Raises KernelError."""
    attributes = node.attributes
    mode = attributes.get("mode", "nearest")
    if node.op_type == "Upsample" or node.opset < 11:
        scales = known[0] if known else None  # attributes in version 1
        if node.op_type == "Upsample" and (scales is None or (scales.size and float(scales.min()) < 1)):
            raise KernelError("the NumPy kernel says what is wrong")
        return plans_of(x, None, None, scales, None, "stretch"), method_of(mode, "asymmetric", "simple")
    coordinates = attributes.get("coordinate_transformation_mode", "half_pixel")
    method = method_of(
        mode,
        coordinates,
        attributes.get("nearest_mode", "round_prefer_floor"),
        attributes.get("cubic_coeff_a", -0.75),
        bool(attributes.get("exclude_outside", 0)),
        bool(attributes.get("antialias", 0)),
    )
    roi, scales, sizes = [*known, None, None, None][:3]
    if coordinates != "tf_crop_and_resize":
        roi = None
    elif roi is None or not roi.size:
        raise KernelError("the NumPy kernel says what is wrong")
    policy = attributes.get("keep_aspect_ratio_policy", "stretch")
    return plans_of(x, attributes.get("axes"), roi, scales, sizes, policy), method


def _in_order(
    rank: int, axes: dict[int, ResizedAxis], both: Callable[[Tensor], Tensor], one: Callable[[int, Tensor], Tensor]
) -> list[Callable[[Tensor], Tensor]]:
    """What to do, axes that shrink first: less is left for the others. ``both``: to the last two at once."""
    last = {rank - 1, rank - 2} & set(axes) if rank - 1 in axes else set()
    steps: list[tuple[float, Callable[[Tensor], Tensor]]] = []
    if last:
        steps.append((math.prod(axes[a].out / axes[a].size for a in last), both))
    for axis in axes.keys() - last:
        steps.append((axes[axis].out / axes[axis].size, partial(one, axis)))
    return [step for _, step in sorted(steps, key=lambda item: item[0])]


def _nearest(b: Builder, x: Tensor, axes: dict[int, ResizedAxis], method: Method) -> Result:
    found = {axis: nearest_indices(plan, method) for axis, plan in axes.items()}
    if any(outside is not None for _, outside, _ in found.values()):
        return None
    rank = len(x.shape)

    def both(x: Tensor) -> Tensor:
        planes = _planes(b, x)
        n, height, _ = planes.shape
        rows = found[rank - 2][0] if rank - 2 in found else np.arange(height)
        columns, _, repeats = found[rank - 1]
        if repeats and repeats not in (2, 4):
            repeats = 0
        result = b.new(x.dtype, [*x.shape[:-2], *([rows.size] if rank > 1 else []), columns.size])
        tables = [
            b.constant((rows * planes.strides[1]).astype(np.int64)),
            b.constant((columns * planes.strides[2]).astype(np.int32)),
        ]
        words: list[Word] = [n, rows.size, columns.size, planes.address(), planes.strides[0]]
        words += [*(t.address() for t in tables), result.address()]
        call = Call(
            Key("resize_nearest", (element_of(x), repeats)),
            words,
            result.size * _NEAREST_NS,
            most_threads=n * rows.size,
        )
        b.add(Native([planes, *tables], [result], [call]))
        return result

    def one(axis: int, x: Tensor) -> Tensor:
        return b.gathered(x, axis, b.constant(found[axis][0]))

    for step in _in_order(rank, axes, both, one):
        x = step(x)
    return [x]


def _in_pixels(b: Builder, x: Tensor, axes: dict[int, ResizedAxis], method: Method) -> Tensor | None:
    """Height and width of a tensor in blocks. None where it isn't done this way."""
    inner = memory(x)
    (n_planes, *others), (steps,) = merged(inner.shape[:2], [inner.strides[:2]])
    tables: list[Tensor] = []
    found: list[Array] = []
    for axis in (2, 3):
        index, weights = np.arange(x.shape[axis])[None], np.ones((1, x.shape[axis]))
        outside = None
        if axis in axes and method.mode == "nearest":
            nearest, outside, _ = nearest_indices(axes[axis], method)
            index, weights = nearest[None], np.ones((1, nearest.size))
        elif axis in axes:
            index, weights, outside = weights_of(axes[axis], method)
        if outside is not None or len(index) > _MOST_TAPS:
            return None
        found.append(index)
        tables += [b.constant(index * inner.strides[axis]), b.constant(weights.astype(np.float32))]
    if others:
        return None
    (row_taps, n_rows), (column_taps, n_columns) = (index.shape for index in found)
    result = in_blocks(b, (*x.shape[:2], n_rows, n_columns))
    words: list[Word] = [n_planes, n_rows, n_columns, inner.address(), steps[0]]
    words += [*(t.address() for t in tables), result.address()]
    call = Call(
        Key("resize_pixels", (x.block, row_taps, column_taps)),
        words,
        n_planes * n_rows * n_columns * (1.0 + row_taps * column_taps),
        most_threads=n_planes * n_rows,
    )
    b.add(Native([inner, *tables], [memory(result)], [call]))
    return result


def _planes(b: Builder, x: Tensor) -> Tensor:
    """As [planes, rows, columns], the columns next to each other; a copy where that takes one."""
    shape = (1, *x.shape) if len(x.shape) == 1 else x.shape
    strides = (0, *x.strides) if len(x.shape) == 1 else x.strides
    sizes, (steps,) = merged(shape[:-2], [strides[:-2]])
    if len(sizes) == 1 and strides[-1] == 1 and abs(strides[-1] * shape[-1]) < 1 << 31:
        return x.view((sizes[0], *shape[-2:]), (steps[0], *strides[-2:]))
    x = b.contiguous(x)
    return x.reshaped((math.prod(shape[:-2]), *shape[-2:]))


def _weighted(b: Builder, x: Tensor, axes: dict[int, ResizedAxis], method: Method) -> Result:
    found = {axis: weights_of(plan, method) for axis, plan in axes.items()}
    if any(outside is not None for _, _, outside in found.values()):
        return None
    rank = len(x.shape)

    def both(x: Tensor) -> Tensor:
        planes = _planes(b, x)
        n, height, _ = planes.shape
        rows, down, _ = found.get(rank - 2) or (np.arange(height)[None], np.ones((1, height)), None)
        columns, across, _ = found[rank - 1]
        n_rows, n_columns = rows.shape[1], columns.shape[1]
        result = b.new(x.dtype, [*x.shape[:-2], *([n_rows] if rank > 1 else []), n_columns])
        n_slots = int((rows.max(axis=0) - rows.min(axis=0)).max()) + 1
        tables = [
            b.constant((rows * planes.strides[1]).astype(np.int64)),
            b.constant((rows % n_slots).astype(np.int64)),
            b.constant(down.astype(np.float32)),
            b.constant(columns.astype(np.int32)),
            b.constant(across.astype(np.float32)),
        ]
        words: list[Word] = [n, n_rows, n_columns, planes.address(), planes.strides[0]]
        words += [*(t.address() for t in tables[:3]), len(rows), *(t.address() for t in tables[3:]), len(columns)]
        words += [result.address(), Scratch(), n_slots]
        taps = tuple(len(t) if len(t) <= _MOST_TAPS else 0 for t in (rows, columns))
        call = Call(
            Key("resize_linear", taps),
            words,
            result.size * _TAP_NS * (len(rows) + len(columns)),
            scratch_nbytes=b.n_threads * n_slots * slot_elements(n_columns) * 4,
            most_threads=n * n_rows,
        )
        b.add(Native([planes, *tables], [result], [call]))
        return result

    for step in _in_order(rank, axes, both, lambda axis, x: _blended(b, x, axis, *found[axis][:2])):
        x = step(x)
    return [x]


def _blended(b: Builder, x: Tensor, axis: int, index: Array, weights: Array) -> Tensor:
    """Weighted sums along an axis that is not the last one. ``index``, ``weights``: [taps, n]"""
    x = b.contiguous(x)
    taps, n = index.shape
    outer, count = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    result = b.new(x.dtype, [*x.shape[:axis], n, *x.shape[axis + 1 :]])
    tables = [b.constant((index * count).astype(np.int64)), b.constant(weights.astype(np.float32))]
    chunk = min(CHUNK, count)
    words: list[Word] = [outer, n, count, chunk, x.address(), x.shape[axis] * count]
    words += [*(t.address() for t in tables), taps, result.address()]
    call = Call(
        Key("resize_blend", (taps if taps <= _MOST_TAPS else 0,)),
        words,
        result.size * 0.1 * taps,
        most_threads=outer * n * -(-count // chunk),
    )
    b.add(Native([x, *tables], [result], [call]))
    return result
