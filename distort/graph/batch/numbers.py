"""Values that are made of the numbers of samples: how models pick, for each sample, something of its own.

``x[arange(N), position]`` becomes Range, Unsqueeze, Expand, Concat and GatherND. Numbers begin anew in each part, so
nothing but an index into the samples themselves, in the batch or in its part, may come of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distort.graph.types import DTYPE_OF

from .elementwise import BROADCASTING
from .rules import Rule, Site
from .values import Content, Tensor, Value, normalized

#: operators that move elements within a sample
_MOVING = frozenset(
    ("Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze")
)
#: operators of which the result has the shape of broadcasting, or of the only input
_ELEMENTWISE = frozenset((*BROADCASTING, "Cast", "Clip", "Neg", "Not", "Abs"))


def any_in(site: Site) -> bool:
    return any(isinstance(value, Tensor) and value.content is not Content.SAMPLES for value in site.inputs)


def numbered(site: Site, rule: Rule) -> Sequence[Value | None]:
    """The outputs of a node that reads numbers of samples. Raises Refused where they would do more than to pick."""
    op_type = site.node.op_type
    contents = [value.content if isinstance(value, Tensor) else Content.SAMPLES for value in site.inputs]
    made = rule(site)
    outputs = list(made) if isinstance(made, Sequence) else [made]
    if (op_type in ("Shape", "Size", "CastLike") and contents[0] is Content.SAMPLES) or op_type in ("Shape", "Size"):
        return outputs
    if op_type in ("Gather", "GatherND", "ScatterND"):
        site.refuse("it picks by the numbers of samples from what isn't theirs")
    if Content.INDICES in contents[1:] or (contents[0] is Content.INDICES and op_type not in ("Identity", "Cast")):
        return _with(outputs, Content.MIXED, site)
    if op_type == "Cast":
        dtype = DTYPE_OF.get(site.attribute("to", 0), np.dtype(object))
        whole = dtype.kind in "iu" and dtype.itemsize >= 4
        return _with(outputs, contents[0] if whole else Content.MIXED, site)
    if op_type in _MOVING:
        return _with(outputs, contents[0], site)
    if op_type == "Concat":
        return _with(outputs, _joined(site, contents), site)
    return _with(outputs, Content.MIXED, site)


def _joined(site: Site, contents: Sequence[Content]) -> Content:
    if all(content is Content.NUMBERS for content in contents):
        return Content.NUMBERS
    first = site.tensor()
    last = normalized(site.attribute("axis", 1), first.rank) == first.rank - 1
    others = all(content is Content.SAMPLES for content in contents[1:])
    if last and others and contents[0] is Content.NUMBERS and first.dims[-1] == 1:
        return Content.INDICES
    return Content.MIXED


def _with(outputs: Sequence[Value | None], content: Content, site: Site) -> list[Value | None]:
    if site.node.op_type not in _MOVING | _ELEMENTWISE | {"Concat"}:
        site.refuse("it computes with the numbers of samples")
    return [replace(value, content=content) if isinstance(value, Tensor) else value for value in outputs]


def picked(site: Site) -> Tensor | None:
    """What an index that begins with a sample's own number picks, or places; None where it is no such node."""
    op_type = site.node.op_type
    if site.node.domain or op_type not in ("Gather", "GatherND", "ScatterND") or not site.has(1):
        return None
    data, indices = site.tensor(0), site.tensor(1)
    if data.content is not Content.SAMPLES or data.axis != 0 or data.rows != 1:
        return None
    if op_type == "Gather":
        if indices.content is not Content.NUMBERS or site.attribute("axis", 0) != 0:
            return None
        return Tensor((*indices.dims, *data.dims[1:]), indices.axis)
    numbers_only = indices.content is Content.NUMBERS and indices.dims[-1] == 1
    depth = indices.dims[-1]
    if not (indices.content is Content.INDICES or numbers_only) or depth is None or indices.axis == indices.rank - 1:
        return None
    if op_type == "GatherND":
        if site.attribute("batch_dims", 0):
            return None
        return Tensor((*indices.dims[:-1], *data.dims[depth:]), indices.axis)
    updates = site.tensor(2)
    if updates.content is not Content.SAMPLES or updates.axis != indices.axis or updates.rows != indices.rows:
        return None
    return Tensor(data.dims, data.axis)
