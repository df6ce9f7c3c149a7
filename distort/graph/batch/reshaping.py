"""Operators that name the dimensions of their result: Reshape, Flatten, Expand, Tile, ConstantOfShape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .elementwise import broadcast_dim
from .rules import MICROSOFT, Site, rule
from .values import FOLLOWED, Element, Refused, Size, Tensor, Value, normalized, product, shape_elements


def _target(site: Site, attribute: str | None = None) -> list[Element]:
    if attribute is not None and site.node.opset < 5 and attribute in site.node.attributes:
        return [int(item) for item in site.attribute(attribute)]
    found = site.elements(1)
    if found is None:
        site.refuse("its shape is an input whose elements aren't known before the run")
    return list(found)


def _growing(target: Sequence[Element]) -> int | None:
    """The only dimension that grows with the batch; None where none does."""
    places = [i for i, element in enumerate(target) if isinstance(element, Size)]
    if not places:
        return None
    if len(places) > 1:
        raise Refused("more than one dimension of its result grows with the batch size")
    size = target[places[0]]
    assert isinstance(size, Size)
    if size.fixed or size.per_sample < 1:
        raise Refused(f"a dimension of its result is {size}, N being the batch size")
    return places[0]


def _numbers(target: Sequence[Element], rows: int) -> list[int | None]:
    return [rows if isinstance(element, Size) else element for element in target]


@rule("Reshape", sizes=(1,))
def reshape(site: Site) -> Value:
    value, target = site.tensor(), _target(site, "shape")
    copied = set()
    for i, element in enumerate(target):
        if element == 0 and not site.attribute("allowzero", 0):
            target[i] = shape_elements(value)[i] if i < value.rank else site.refuse("it copies a dimension there isn't")
            copied.add(i)
    return reshaped(value, target, copied)


def reshaped(value: Tensor, target: Sequence[Element], copied: set[int]) -> Tensor:
    """The same elements in other dimensions; those at ``copied`` are the value's own, known or not.

    What lies before the batch axis must stay before it as a whole: samples then stay one after the other.
    """
    total = product(value.dims) if value.shape is not None else None
    place = _growing(target)
    open_places = [i for i, element in enumerate(target) if element == -1]
    if value.axis is None:
        if place is not None:
            raise Refused("its result has the batch size as a dimension, and its input does not")
        return Tensor(tuple(_filled(_numbers(target, 0), open_places, total)), None)
    if place is not None:
        size = target[place]
        assert isinstance(size, Size)
        dims = _filled(_numbers(target, size.per_sample), open_places, total)
    elif open_places:
        place = open_places[0]
        dims = _filled(_numbers(target, 0), open_places, total)
        if dims[place] is None:
            raise Refused("the rows of a sample that -1 stands for aren't known, or no whole number")
    else:
        raise Refused(f"it fixes the batch dimension: its result is {_text(target)} for any batch size")
    same = 0  # leading dimensions that are copied, known or not
    while same < min(value.axis, place) and same in copied:
        same += 1
    before, after = product(value.dims[same : value.axis]), product(dims[same:place])
    if before is None or before != after:
        raise Refused("it moves samples between the dimensions before the batch axis and those after it")
    rows, result = product(value.dims[value.axis :]), product(dims[place:])
    if rows is not None and result is not None and rows != result:
        raise Refused(f"it takes {rows} elements of a sample as {result}")
    return Tensor(tuple(dims), place)


def _filled(dims: list[int | None], open_places: Sequence[int], total: int | None) -> list[int | None]:
    """-1 as what remains of ``total``; None where that isn't a whole number above 0, or not known."""
    if len(open_places) > 1:
        raise Refused("more than one dimension of its result is -1")
    for place in open_places:
        others = product(dim for i, dim in enumerate(dims) if i != place)
        whole = total is not None and others is not None and others > 0 and total > 0 and total % others == 0
        dims[place] = total // others if whole and total is not None and others is not None else None
    return dims


def _text(target: Sequence[Element]) -> str:
    return f"[{', '.join('?' if element is None else str(element) for element in target)}]"


@rule("Flatten")
def flatten(site: Site) -> Value:
    value = site.tensor()
    axis = site.attribute("axis", 1)
    axis = axis + value.rank if axis < 0 else axis
    if value.axis is None:
        return Tensor((product(value.dims[:axis]), product(value.dims[axis:])))
    first, last = product(value.dims[:axis]), product(value.dims[axis:])
    if value.axis < axis:
        if product(value.dims[: value.axis]) != 1:
            site.refuse("it flattens the dimensions before the batch axis into it")
        return Tensor((first, last), 0)
    if product(value.dims[axis : value.axis]) != 1:
        site.refuse("it flattens the dimensions before the batch axis into it")
    return Tensor((first, last), 1)


@rule("Squeeze")
def squeeze(site: Site) -> Value:
    value = site.tensor()
    axes = site.integers(1, "axes")
    if axes is None:
        if site.has(1):
            site.refuse("its axes aren't known before the run")
        if None in value.dims:
            site.refuse("it removes all dimensions of 1, and not all dimensions are known")
        if value.axis is not None and value.rows == 1:
            site.refuse("it removes all dimensions of 1: a part of one sample would lose the batch axis")
        axes = [i for i, dim in enumerate(value.dims) if dim == 1]
    removed = {normalized(axis, value.rank) for axis in axes}
    if value.axis in removed:
        site.refuse("it removes the batch axis")
    dims = [dim for i, dim in enumerate(value.dims) if i not in removed]
    axis = None if value.axis is None else value.axis - sum(i < value.axis for i in removed)
    return Tensor(tuple(dims), axis)


@rule("Unsqueeze")
def unsqueeze(site: Site) -> Value:
    value, axes = site.tensor(), site.integers(1, "axes")
    if axes is None:
        site.refuse("its axes aren't known before the run")
    rank = value.rank + len(axes)
    added = {normalized(axis, rank) for axis in axes}
    kept = [i for i in range(rank) if i not in added]
    dims: list[int | None] = [1] * rank
    for i, dim in zip(kept, value.dims, strict=True):
        dims[i] = dim
    return Tensor(tuple(dims), None if value.axis is None else kept[value.axis])


rule("ExpandDims", domain=MICROSOFT)(unsqueeze)


@rule("Expand", sizes=(1,))
def expand(site: Site) -> Value:
    value, target = site.tensor(), _target(site)
    place = _growing(target)
    rank = max(value.rank, len(target))
    asked: list[Element] = [*[1] * (rank - len(target)), *target]
    given: list[int | None] = [*[1] * (rank - value.rank), *value.dims]
    if place is not None:
        place += rank - len(target)
    if value.axis is None:
        dims = [_expanded(have, want) for have, want in zip(given, _numbers(asked, 0), strict=True)]
        if place is None:
            return Tensor(tuple(dims))
        size = asked[place]
        assert isinstance(size, Size)
        if given[place] != 1:
            site.refuse(f"it takes {given[place] or 'an unknown number of'} rows as {size}, N being the batch size")
        dims[place] = size.per_sample
        return Tensor(tuple(dims), place)
    axis = value.axis + rank - value.rank
    want = asked[axis]
    if not (want == 1 or (isinstance(want, Size) and want.per_sample == value.rows)) or place not in (None, axis):
        site.refuse("it repeats samples, or fixes the batch dimension")
    dims = [_expanded(have, want) for have, want in zip(given, _numbers(asked, 1), strict=True)]
    dims[axis] = value.rows
    return Tensor(tuple(dims), axis)


def _expanded(have: int | None, want: int | None) -> int | None:
    return broadcast_dim((have, want))


@rule("Tile", sizes=(1,))
def tile(site: Site) -> Value:
    value = site.tensor()
    if site.node.opset < 6:
        site.refuse("versions before 6 have no rule")
    repeats = _target(site)
    if len(repeats) != value.rank:
        site.refuse("it has another number of repeats than its input has dimensions")
    place = _growing(repeats)
    counts = _numbers(repeats, 0)
    dims = [None if dim is None or n is None else dim * n for dim, n in zip(value.dims, counts, strict=True)]
    if value.axis is None:
        if place is None:
            return Tensor(tuple(dims))
        size, rows = repeats[place], value.dims[place]
        assert isinstance(size, Size)
        if rows is None:
            site.refuse("the dimension that it repeats for each sample isn't known")
        dims[place] = rows * size.per_sample
        return Tensor(tuple(dims), place)
    if place is not None or repeats[value.axis] != 1:
        site.refuse("it repeats samples")
    return Tensor(tuple(dims), value.axis)


@rule("ConstantOfShape", samples=(), sizes=(0,))
def constant_of_shape(site: Site) -> Value:
    target = site.elements(0)
    if target is None:
        site.refuse("its shape isn't known before the run")
    place = _growing(target)
    size = target[place] if place is not None else None
    dims = _numbers(target, size.per_sample if isinstance(size, Size) else 0)
    if place is None and all(isinstance(dim, int) for dim in dims):
        count = product(dims)
        if count is not None and 0 <= count <= FOLLOWED:
            given = site.attribute("value")
            filled = np.zeros(1, np.float32) if given is None else np.asarray(given).reshape(-1)
            shape = tuple(dim for dim in dims if dim is not None)
            return Tensor(shape, None, np.full(shape, filled[0], filled.dtype))
    return Tensor(tuple(dims), place)
