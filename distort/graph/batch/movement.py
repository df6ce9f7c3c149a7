"""Operators that move, join and cut: Transpose, Concat, Split, Slice, Pad, and their like."""

from __future__ import annotations

from collections.abc import Sequence

from .rules import EVERY, MICROSOFT, Site, rule
from .values import Element, Size, Tensor, Value, normalized

#: an end or a size from which on onnx means "to the end"
_TO_THE_END = 1_000_000_000


@rule("Transpose")
def transpose(site: Site) -> Value:
    value = site.tensor()
    order = list(site.attribute("perm") or reversed(range(value.rank)))
    if sorted(order) != list(range(value.rank)):
        site.refuse("its order of axes doesn't fit its input")
    axis = None if value.axis is None else order.index(value.axis)
    return Tensor(tuple(value.dims[i] for i in order), axis)


@rule("Concat", samples=EVERY)
def concat(site: Site) -> Value:
    return concatenated(site, site.tensors(), site.attribute("axis", 1))


def concatenated(site: Site, values: Sequence[Tensor], axis: int) -> Tensor:
    rank = values[0].rank
    axis = normalized(axis, rank)
    if any(value.rank != rank for value in values):
        site.refuse("its inputs have different ranks")
    axes = {value.axis for value in values}
    if len(axes) > 1:
        site.refuse("it joins values that are made of samples with such that are not, or of other axes")
    if values[0].axis is not None:
        if axis == values[0].axis:
            site.refuse("it joins values along the batch axis")
        if len({value.rows for value in values}) > 1:
            site.refuse("its inputs have different numbers of rows for a sample")
    dims: list[int | None] = []
    for i in range(rank):
        sizes = [value.dims[i] for value in values]
        if i == axis:
            known = [size for size in sizes if size is not None]
            dims.append(sum(known) if len(known) == len(sizes) else None)
        else:
            dims.append(next((size for size in sizes if size is not None), None))
    return Tensor(tuple(dims), values[0].axis)


@rule("QLinearConcat", domain=MICROSOFT, samples=EVERY)
def quantized_concat(site: Site) -> Value:
    parts = range(2, len(site.inputs), 3)
    if any(site.tensor(i).axis is not None for i in range(len(site.inputs)) if i not in parts):
        site.refuse("a scale or zero point is made of samples")
    return concatenated(site, [site.tensor(i) for i in parts], site.attribute("axis", 1))


@rule("Split")
def split(site: Site) -> Sequence[Value]:
    value = site.tensor()
    axis = normalized(site.attribute("axis", 0), value.rank)
    if axis == value.axis:
        site.refuse("it splits the batch axis")
    n_parts = len(site.node.outputs)
    sizes: Sequence[int | None] | None = site.integers(1, "split")
    total = value.dims[axis]
    if sizes is None:
        sizes = [None] * n_parts
        if not site.has(1) and total is not None:
            each = -(-total // n_parts)
            sizes = [max(0, min(each, total - i * each)) for i in range(n_parts)]
    return [Tensor((*value.dims[:axis], size, *value.dims[axis + 1 :]), value.axis) for size in sizes]


@rule("Slice", sizes=(1, 2))
def slice_(site: Site) -> Value:
    value = site.tensor()
    old = site.node.opset < 10
    bounds: list[Sequence[Element] | None] = []
    for position, name in ((1, "starts"), (2, "ends"), (3, "axes"), (4, "steps")):
        bounds.append(site.attribute(name) if old else site.elements(position))
    starts, ends, axes, steps = bounds
    if axes is None:
        if not old and site.has(3):
            site.refuse("its axes aren't known before the run")
        counted = len(starts) if starts is not None else _length(site, 1)
        axes = list(range(counted))
    dims = list(value.dims)
    for i, axis in enumerate(axes):
        if not isinstance(axis, int):
            site.refuse("its axes aren't known before the run")
        place = normalized(axis, value.rank)
        start, end = (bound[i] if bound is not None else None for bound in (starts, ends))
        step: Element = steps[i] if steps is not None else None if not old and site.has(4) else 1
        if place == value.axis:
            to_the_end = (isinstance(end, int) and end >= _TO_THE_END) or end == Size(value.rows)
            if not (start == 0 and step == 1 and to_the_end):
                site.refuse("it takes some of the samples")
        elif isinstance(start, Size) or isinstance(end, Size):
            site.refuse("what it takes of an axis depends on the batch size")
        else:
            dims[place] = sliced_dim(dims[place], start, end, step if isinstance(step, int) else None)
    return Tensor(tuple(dims), value.axis)


def _length(site: Site, position: int) -> int:
    length = site.tensor(position).dims[0]
    if length is None:
        site.refuse("the number of axes that it slices isn't known")
    return length


def sliced_dim(dim: int | None, start: int | None, end: int | None, step: int | None) -> int | None:
    if dim is None or start is None or end is None or not step:
        return None
    if step < 0:  # an end before the first element
        start = max(-1, start + dim) if start < 0 else min(start, dim - 1)
        end = max(-1, end + dim) if end < 0 else min(end, dim - 1)
        return len(range(start, end, step))
    return len(range(dim)[start:end:step])


@rule("Pad")
def pad(site: Site) -> Value:
    value = site.tensor()
    pads = site.integers(1, "pads" if site.node.opset >= 2 else "paddings")
    axes: list[int] | None = list(range(value.rank))
    if site.has(3):
        given = site.integers(3)
        axes = None if given is None else [normalized(axis, value.rank) for axis in given]
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        if value.axis is None:
            return Tensor((None,) * value.rank)
        site.refuse("what it pads isn't known before the run")
    dims = list(value.dims)
    for i, axis in enumerate(axes):
        added = pads[i] + pads[i + len(axes)]
        if axis == value.axis and (pads[i] or pads[i + len(axes)]):
            site.refuse("it pads the batch axis")
        dim = dims[axis]
        dims[axis] = None if dim is None else dim + added
    return Tensor(tuple(dims), value.axis)


@rule("DepthToSpace", "SpaceToDepth")
def blocks(site: Site) -> Value:
    value, size = site.tensor(), int(site.attribute("blocksize", 1))
    if value.axis not in (None, 0) or value.rank != 4:
        site.refuse("it moves elements between the batch axis and others")
    n, c, h, w = value.dims
    if site.node.op_type == "DepthToSpace":
        return Tensor((n, _scaled(c, 1, size * size), _scaled(h, size), _scaled(w, size)), value.axis)
    return Tensor((n, _scaled(c, size * size), _scaled(h, 1, size), _scaled(w, 1, size)), value.axis)


def _scaled(dim: int | None, by: int, over: int = 1) -> int | None:
    return None if dim is None else dim * by // over


@rule("Trilu")
def triangle(site: Site) -> Value:
    value = site.tensor()
    if value.axis is not None and value.axis >= value.rank - 2:
        site.refuse("it takes a triangle over the batch axis")
    return Tensor(value.dims, value.axis)


@rule("Inverse", domain=MICROSOFT)
def inverse(site: Site) -> Value:
    return triangle(site)


@rule("Det")
def determinant(site: Site) -> Value:
    value = triangle(site)
    assert isinstance(value, Tensor)
    return Tensor(value.dims[:-2], value.axis)


@rule("ReverseSequence", samples=(0, 1))
def reverse_sequence(site: Site) -> Value:
    value, lengths = site.tensor(), site.tensor(1)
    batch, time = site.attribute("batch_axis", 1), site.attribute("time_axis", 0)
    if value.axis is None and lengths.axis is None:
        return Tensor(value.dims)
    if value.axis == time:
        site.refuse("it reverses the batch axis")
    if value.axis != batch or lengths.axis != 0 or lengths.rows != value.rows:
        site.refuse("its lengths are not those of the samples")
    return Tensor(value.dims, value.axis)
