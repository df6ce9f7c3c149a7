"""Operators over whole axes: reductions, softmax, normalizations, TopK, CumSum. Not over the batch axis."""

from __future__ import annotations

from collections.abc import Sequence

from .elementwise import broadcast
from .rules import MICROSOFT, Site, rule
from .values import Dims, Tensor, Value, normalized
from .windows import leading

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")


@rule(*(f"Reduce{name}" for name in _REDUCTIONS))
def reduce(site: Site) -> Value:
    value, axes = site.tensor(), site.integers(1, "axes")
    if axes is None and site.has(1):
        site.refuse("its axes aren't known before the run")
    if not axes and site.attribute("noop_with_empty_axes", 0):
        return Tensor(value.dims, value.axis)
    reduced = {normalized(axis, value.rank) for axis in axes} if axes else set(range(value.rank))
    if value.axis in reduced:
        site.refuse("it reduces the batch axis" if axes else "it reduces all axes, the batch axis too")
    return Tensor(*_reduced(value, reduced, bool(site.attribute("keepdims", 1))))


def _reduced(value: Tensor, reduced: set[int], keeps: bool) -> tuple[Dims, int | None]:
    if keeps:
        return tuple(1 if i in reduced else dim for i, dim in enumerate(value.dims)), value.axis
    axis = None if value.axis is None else value.axis - sum(i < value.axis for i in reduced)
    return tuple(dim for i, dim in enumerate(value.dims) if i not in reduced), axis


@rule("ArgMax", "ArgMin")
def extreme_index(site: Site) -> Value:
    value = site.tensor()
    axis = _other_axis(site, value, site.attribute("axis", 0), "it looks for one index along")
    return Tensor(*_reduced(value, {axis}, bool(site.attribute("keepdims", 1))))


def _other_axis(site: Site, value: Tensor, axis: int, what: str) -> int:
    axis = normalized(axis, value.rank)
    if axis == value.axis:
        site.refuse(f"{what} the batch axis")
    return axis


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(site: Site) -> Value:
    value = site.tensor()
    if site.node.opset >= 13:
        _other_axis(site, value, site.attribute("axis", -1), "it mixes")
        return Tensor(value.dims, value.axis)
    axis = site.attribute("axis", 1)
    # one row is all elements from ``axis`` on
    if value.axis is not None and value.axis >= (axis + value.rank if axis < 0 else axis):
        site.refuse("it mixes the batch axis: before version 13 a row is all that lies from its axis on")
    return Tensor(value.dims, value.axis)


@rule("QLinearSoftmax", domain=MICROSOFT)
def quantized_softmax(site: Site) -> Value:
    value, axis = site.tensor(), site.attribute("axis", -1)
    if value.axis is not None and value.axis >= (axis + value.rank if axis < 0 else axis):
        site.refuse("it mixes the batch axis")
    return Tensor(value.dims, value.axis)


@rule("TopK")
def top(site: Site) -> Sequence[Value]:
    value = site.tensor()
    axis = _other_axis(site, value, site.attribute("axis", -1), "it sorts")
    count = site.integers(1, "k")
    dims = (*value.dims[:axis], count[0] if count else None, *value.dims[axis + 1 :])
    return [Tensor(dims, value.axis)] * 2


@rule("CumSum", "CumProd")
def running_sum(site: Site) -> Value:
    value, axis = site.tensor(), site.integers(1)
    if axis is None:
        site.refuse("its axis isn't known before the run")
    _other_axis(site, value, axis[0], "it adds up along")
    return Tensor(value.dims, value.axis)


@rule("LpNormalization")
def lp_normalization(site: Site) -> Value:
    value = site.tensor()
    _other_axis(site, value, site.attribute("axis", -1), "it normalizes over")
    return Tensor(value.dims, value.axis)


@rule("MeanVarianceNormalization")
def mean_variance(site: Site) -> Value:
    value = site.tensor()
    for axis in site.attribute("axes", [0, 2, 3]):
        _other_axis(site, value, axis, "it normalizes over")
    return Tensor(value.dims, value.axis)


@rule("BatchNormalization")
def batch_normalization(site: Site) -> Sequence[Value]:
    value = site.tensor()
    trains = site.attribute("training_mode", 0) or (site.node.opset < 7 and not site.attribute("is_test", 0))
    if value.axis is not None and (trains or any(site.wants(i) for i in range(1, 5))):
        site.refuse("it is in training mode: its statistics are those of all samples")
    if value.axis == 1 or (value.axis is not None and value.axis > 0 and not site.attribute("spatial", 1)):
        site.refuse("it has a scale for each row of the batch axis")
    return [Tensor(value.dims, value.axis), *(Tensor() for _ in site.node.outputs[1:])]


@rule("GroupNormalization", "InstanceNormalization", "LRN")
def instance_normalization(site: Site) -> Value:
    value = leading(site)
    return Tensor(value.dims, value.axis)


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_normalization(site: Site) -> Sequence[Value]:
    value = site.tensor()
    if value.axis is None and value.shape is None:
        return [Tensor() for _ in site.node.outputs]
    first = normalized(site.attribute("axis", -1), value.rank)
    if value.axis is not None and value.axis >= first:
        site.refuse("it normalizes over the batch axis")
    end = None if value.axis is None else value.rank - value.axis
    for position in range(1, len(site.inputs)):
        scale = site.optional(position)
        if scale is not None and end is not None and scale.rank >= end and scale.dims[-end] != 1:
            site.refuse("it has a scale for each row of the batch axis")
    statistics = Tensor((*value.dims[:first], *(1 for _ in value.dims[first:])), value.axis)
    return [Tensor(value.dims, value.axis), *(statistics for _ in site.node.outputs[1:])]


@rule("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT, samples=(0, 1))
def skip_normalization(site: Site) -> Sequence[Value]:
    value, skip = site.tensor(), site.tensor(1)
    result = broadcast([value, skip])
    if result.axis is not None and (result.axis == result.rank - 1 or value.axis is None):
        site.refuse("it normalizes over the batch axis, or adds samples to what is the same for every part")
    statistics = Tensor((*result.dims[:-1], 1), result.axis)
    return [result, statistics, statistics, result][: len(site.node.outputs)]


@rule("DFT")
def fourier(site: Site) -> Value:
    value = site.tensor()
    axis = [site.attribute("axis", 1)] if site.node.opset < 20 else site.integers(2) if site.has(2) else [-2]
    if axis is None:
        site.refuse("its axis isn't known before the run")
    axis = [_other_axis(site, value, axis[0], "it transforms")]
    if value.axis == value.rank - 1:
        site.refuse("its input has real and imaginary parts along the batch axis")
    # one side of a spectrum, or another length, has other dimensions
    dims = tuple(None if i in (axis[0], value.rank - 1) else dim for i, dim in enumerate(value.dims))
    return Tensor(dims, value.axis)


@rule("STFT")
def short_time_fourier(site: Site) -> Value:
    value = leading(site)
    return Tensor((value.dims[0], None, None, 2), value.axis)
