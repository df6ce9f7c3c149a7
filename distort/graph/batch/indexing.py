"""Operators that pick and place elements by index."""

from __future__ import annotations

import numpy as np

from .rules import MICROSOFT, Site, rule
from .values import FOLLOWED, Content, Size, Tensor, Value, normalized

_PICKS = "it picks from the samples by their number"


@rule("Gather", samples=(0, 1))
def gather(site: Site) -> Value:
    data, indices = site.tensor(), site.tensor(1)
    place = normalized(site.attribute("axis", 0), data.rank)
    dims = (*data.dims[:place], *indices.dims, *data.dims[place + 1 :])
    if data.axis is None:
        return Tensor(dims, None if indices.axis is None else place + indices.axis)
    if indices.axis is not None:
        site.refuse("it picks from samples by indices that are made of samples")
    if data.axis == place:
        site.refuse(_PICKS)
    return Tensor(dims, data.axis if data.axis < place else data.axis - 1 + indices.rank)


@rule("GatherBlockQuantized", domain=MICROSOFT, samples=(1,))
def gather_blocks(site: Site) -> Value:
    """Rows of a quantized table, which is the same for every part."""
    table, indices = site.tensor(), site.tensor(1)
    place = normalized(site.attribute("gather_axis", 0), table.rank)
    rest = (None for _ in range(table.rank - place - 1))  # several elements may be packed in one
    axis = None if indices.axis is None else place + indices.axis
    return Tensor((*table.dims[:place], *indices.dims, *rest), axis)


@rule("GatherElements", samples=(0, 1))
def gather_elements(site: Site) -> Value:
    data, indices = site.tensor(), site.tensor(1)
    if data.rank != indices.rank:
        site.refuse("its indices have another rank than its data")
    place = normalized(site.attribute("axis", 0), data.rank)
    if data.axis is None:
        if indices.axis not in (None, place):
            site.refuse("its indices have rows for samples, and its data is the same for every part")
        return Tensor(indices.dims, indices.axis)
    if indices.axis is None:
        site.refuse("its data is made of samples, and its indices are the same for every part")
    if data.axis == place:
        site.refuse(_PICKS)
    if data.axis != indices.axis or data.rows != indices.rows:
        site.refuse("its indices are not those of the samples")
    return Tensor(indices.dims, indices.axis)


@rule("GatherND", samples=(0, 1))
def gather_nd(site: Site) -> Value:
    data, indices = site.tensor(), site.tensor(1)
    n_batch = int(site.attribute("batch_dims", 0))
    depth = indices.dims[-1]  # how many axes an index covers
    if indices.axis == indices.rank - 1:
        site.refuse("its indices lie along the batch axis")
    if depth is None:
        if data.axis is None:
            return Tensor()
        site.refuse("how many axes it indexes isn't known")
    dims = (*indices.dims[:-1], *data.dims[n_batch + depth :])
    if data.axis is None:
        if indices.axis is not None and indices.axis < n_batch:
            site.refuse("its indices have rows for samples, and its data is the same for every part")
        return Tensor(dims, indices.axis)
    if data.axis < n_batch:
        if indices.axis != data.axis or indices.rows != data.rows:
            site.refuse("its indices are not those of the samples")
        return Tensor(dims, data.axis)
    if indices.axis is not None:
        site.refuse("it picks from samples by indices that are made of samples")
    if data.axis < n_batch + depth:
        site.refuse(_PICKS)
    return Tensor(dims, indices.rank - 1 + data.axis - n_batch - depth)


@rule("ScatterElements", "Scatter", samples=(0, 1, 2))
def scatter_elements(site: Site) -> Value:
    data, indices, updates = (site.tensor(i) for i in range(3))
    place = normalized(site.attribute("axis", 0), data.rank)
    values = (data, indices, updates)
    if all(value.axis is None for value in values):
        return Tensor(data.dims)
    if len({value.rank for value in values}) > 1:
        site.refuse("its data, indices and updates have different ranks")
    if any(value.axis is None for value in values):
        site.refuse("it places samples in what is the same for every part, or the other way round")
    if data.axis == place:
        site.refuse("it places elements by the number of their sample")
    if len({(value.axis, value.rows) for value in values}) > 1:
        site.refuse("its indices and updates are not those of the samples")
    return Tensor(data.dims, data.axis)


@rule("ScatterND", samples=(0, 1, 2))
def scatter_nd(site: Site) -> Value:
    data, indices, updates = (site.tensor(i) for i in range(3))
    if all(value.axis is None for value in (data, indices, updates)):
        return Tensor(data.dims)
    if indices.axis is not None:
        site.refuse("it places elements by the number of their sample")
    depth = indices.dims[-1]
    if data.axis is None:
        site.refuse("it places samples in what is the same for every part")
    if depth is None or data.axis < depth:
        site.refuse("it places elements by the number of their sample")
    # updates: [the indices' dimensions but the last, those of the data that an index leaves]
    if updates.axis != indices.rank - 1 + data.axis - depth or updates.rows != data.rows:
        site.refuse("its updates are not those of the samples")
    return Tensor(data.dims, data.axis)


@rule("Compress")
def compress(site: Site) -> Value:
    value, axis = site.tensor(), site.attribute("axis")
    if axis is None:
        if value.axis is None:
            return Tensor((None,))
        site.refuse("it flattens its input, samples too")
    axis = normalized(axis, value.rank)
    if axis == value.axis:
        site.refuse(_PICKS)
    return Tensor((*value.dims[:axis], None, *value.dims[axis + 1 :]), value.axis)


@rule("OneHot")
def one_hot(site: Site) -> Value:
    value, depth = site.tensor(), site.optional(1)
    place = normalized(site.attribute("axis", -1), value.rank + 1)
    known = depth is not None and depth.array is not None and depth.array.size == 1
    count = int(depth.array.reshape(-1)[0]) if known and depth is not None and depth.array is not None else None
    axis = None if value.axis is None else value.axis + (value.axis >= place)
    return Tensor((*value.dims[:place], count, *value.dims[place:]), axis)


@rule("Range", samples=(), sizes=(1,))
def range_(site: Site) -> Value:
    end = site.elements(1)
    if end is not None and isinstance(end[0], Size):
        if (site.integers(0), end[0], site.integers(2)) != ([0], Size(1), [1]):
            site.refuse("it counts by the batch size in another way than from 0 to N-1")
        return Tensor((1,), 0, None, Content.NUMBERS)
    bounds = [site.tensor(i).array for i in range(3)]
    if any(bound is None or bound.size != 1 or bound.dtype.kind not in "iu" for bound in bounds):
        return Tensor((None,))
    start, limit, step = (int(bound.reshape(-1)[0]) for bound in bounds if bound is not None)
    if step == 0:
        site.refuse("its step is 0")
    values = range(start, limit, step)
    if len(values) > FOLLOWED or bounds[0] is None:
        return Tensor((len(values),))
    return Tensor((len(values),), None, np.array(values, bounds[0].dtype))


@rule("TensorScatter", samples=(0, 1, 2))
def tensor_scatter(site: Site) -> Value:
    """A cache [N, ...] that each sample's own update is written into, from its own position on."""
    cache, update, positions = site.tensor(0), site.tensor(1), site.optional(2)
    values = [value for value in (cache, update, positions) if value is not None]
    if all(value.axis is None for value in values):
        return Tensor(cache.dims)
    if cache.axis != 0 or any(value.axis != 0 or value.rows != cache.rows for value in values):
        site.refuse("its cache, its updates and its positions are not all those of the samples")
    return Tensor(cache.dims, 0)


@rule("TfIdfVectorizer")
def tf_idf(site: Site) -> Value:
    value = site.tensor()
    if value.axis is not None and (value.axis, value.rank) != (0, 2):
        site.refuse("its input isn't a matrix with a sample in each row")
    return Tensor((*value.dims[:-1], None), value.axis)
