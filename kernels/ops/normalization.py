"""Normalization over trailing axes or channel groups: LayerNormalization, RMSNormalization, GroupNormalization.

Statistics are in float32 (float64 for float64), the result is rounded once.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.elementwise import dtype_of
from distort.kernels.registry import kernel

Array = Any


def _wide(xp: ModuleType, a: Array) -> Array:
    return a if a.dtype.itemsize >= 4 else a.astype(xp.float32)


def _mean_of_squares(xp: ModuleType, rows: Array) -> Array:
    """[R, N] -> [R, 1]"""
    return xp.einsum("ij,ij->i", rows, rows)[:, None] / rows.dtype.type(rows.shape[1])


def _standardized(xp: ModuleType, rows: Array, epsilon: float) -> tuple[Array, Array, Array]:
    """rows: [R, N]. Returns (rows - mean) / std in memory of its own, mean [R, 1], 1 / std [R, 1]."""
    mean = rows.mean(axis=1, keepdims=True)
    result = rows - mean
    inverse = 1 / xp.sqrt(_mean_of_squares(xp, result) + rows.dtype.type(epsilon))
    result *= inverse
    return result, mean, inverse


def _affine(xp: ModuleType, rows: Array, like: Array, scale: Array | None, bias: Array | None) -> Array:
    """rows * scale + bias, shaped and typed as ``like``. rows [R, N] may be overwritten."""
    rows = xp.ascontiguousarray(rows)  # so that ``result`` is a view of them
    result = rows.reshape(like.shape)
    for name, parameter in (("Scale", scale), ("B", bias)):
        if parameter is None:
            continue
        if parameter.size == rows.shape[1] and parameter.ndim == 1:
            parameter, target = parameter.reshape(-1), rows
        elif parameter.ndim <= like.ndim and all(
            size in (1, goal) for size, goal in zip(reversed(parameter.shape), reversed(like.shape), strict=False)
        ):
            target = result
        else:
            raise InvalidInput(f"{name} of shape {list(parameter.shape)} doesn't broadcast to X {list(like.shape)}")
        parameter = parameter.astype(rows.dtype, copy=False)
        if name == "Scale":
            target *= parameter
        else:
            target += parameter
    return result.astype(like.dtype, copy=False)


def _rows(xp: ModuleType, x: Array, axis: int) -> tuple[Array, tuple[int, ...]]:
    """x as [R, N], where N spans the axes from ``axis`` on, and the shape of one statistic a row."""
    if not -x.ndim <= axis < x.ndim:
        raise InvalidInput(f"axis {axis} of an input of shape {list(x.shape)}")
    axis %= x.ndim
    inner = math.prod(x.shape[axis:])
    if not inner:
        raise InvalidInput(f"nothing to normalize: shape {list(x.shape)} from axis {axis}")
    return _wide(xp, x).reshape(-1, inner), x.shape[:axis] + (1,) * (x.ndim - axis)


def _statistic(x: Array, value: Array, shape: tuple[int, ...], stash_type: int) -> Array:
    if x.dtype.itemsize == 8:
        return value.reshape(shape)
    return value.reshape(shape).astype(dtype_of(stash_type), copy=False)


# onnxruntime had the operator in ai.onnx before opset 17
@kernel("LayerNormalization")
def layer_normalization(
    xp: ModuleType,
    x: Array,
    scale: Array,
    bias: Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> tuple[Array, Array, Array]:
    """LayerNormalization 17. Mean and InvStdDev keep the rank of X. float64 inputs give float64 statistics."""
    rows, shape = _rows(xp, x, axis)
    result, mean, inverse = _standardized(xp, rows, epsilon)
    y = _affine(xp, result, x, scale, bias)
    return y, _statistic(x, mean, shape, stash_type), _statistic(x, inverse, shape, stash_type)


def _rms(xp: ModuleType, x: Array, scale: Array, axis: int, epsilon: float) -> tuple[Array, Array, tuple[int, ...]]:
    rows, shape = _rows(xp, x, axis)
    inverse = 1 / xp.sqrt(_mean_of_squares(xp, rows) + rows.dtype.type(epsilon))
    return _affine(xp, rows * inverse, x, scale, None), inverse, shape


@kernel("RMSNormalization", 23)
def rms_normalization(
    xp: ModuleType, x: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Array:
    """RMSNormalization 23."""
    return _rms(xp, x, scale, axis, epsilon)[0]


@kernel("SimplifiedLayerNormalization")
@kernel("SimplifiedLayerNormalization", domain="com.microsoft")
def simplified_layer_normalization(
    xp: ModuleType, x: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple[Array, Array]:
    """onnxruntime's SimplifiedLayerNormalization: RMS normalization with the inverse RMS as second output."""
    y, inverse, shape = _rms(xp, x, scale, axis, epsilon)
    return y, _statistic(x, inverse, shape, stash_type)


def _with_skip(xp: ModuleType, x: Array, skip: Array, bias: Array | None) -> Array:
    """x + skip + bias in float32 or wider. x: [B, S, H] or [T, H]; skip: the same, or [1, S, H], or [S, H]."""
    if x.shape[-skip.ndim :] != skip.shape and skip.shape != (1, *x.shape[1:]):
        raise InvalidInput(f"skip is expected to have the shape of input {list(x.shape)}, it has {list(skip.shape)}")
    total = _wide(xp, x) + _wide(xp, skip)
    if bias is not None:
        if bias.shape != x.shape[-1:]:
            raise InvalidInput(f"bias of shape {list(bias.shape)} for a hidden size of {x.shape[-1]}")
        total += bias
    return total


@kernel("SkipLayerNormalization", domain="com.microsoft")
def skip_layer_normalization(
    xp: ModuleType,
    x: Array,
    skip: Array,
    gamma: Array,
    beta: Array | None = None,
    bias: Array | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Array, Array, Array, Array]:
    """com.microsoft SkipLayerNormalization: LayerNormalization of x + skip + bias, and that sum as fourth output."""
    total = _with_skip(xp, x, skip, bias)
    rows, shape = _rows(xp, total, -1)
    result, mean, inverse = _standardized(xp, rows, epsilon)
    y = _affine(xp, result, x, gamma, beta)
    return y, mean.reshape(shape), inverse.reshape(shape), total.astype(x.dtype, copy=False)


@kernel("SkipSimplifiedLayerNormalization", domain="com.microsoft")
def skip_simplified_layer_normalization(
    xp: ModuleType, x: Array, skip: Array, gamma: Array, bias: Array | None = None, *, epsilon: float = 1e-12
) -> tuple[Array, None, Array, Array]:
    """com.microsoft SkipSimplifiedLayerNormalization: the same with RMS normalization; there is no mean."""
    total = _with_skip(xp, x, skip, bias)
    y, inverse, shape = _rms(xp, total, gamma, -1, epsilon)
    return y.astype(x.dtype, copy=False), None, inverse.reshape(shape), total.astype(x.dtype, copy=False)


def _group_rows(xp: ModuleType, x: Array, num_groups: int) -> Array:
    """x: [N, C, ...] -> [N * G, C / G * ...]"""
    if x.ndim < 2 or num_groups < 1 or x.shape[1] % num_groups:
        raise InvalidInput(f"{num_groups} groups of the channels of an input of shape {list(x.shape)}")
    if not x.size:
        raise InvalidInput(f"nothing to normalize: shape {list(x.shape)}")
    return _wide(xp, x).reshape(x.shape[0] * num_groups, -1)


def _check_per(what: str, count: int, scale: Array, bias: Array) -> None:
    if scale.shape != (count,) or bias.shape != (count,):
        raise InvalidInput(
            f"GroupNormalization needs scale and bias of shape [{count}] (one a {what}): "
            f"they have {list(scale.shape)} and {list(bias.shape)}"
        )


@kernel("GroupNormalization", 21)
def group_normalization(
    xp: ModuleType,
    x: Array,
    scale: Array,
    bias: Array,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Array:
    """GroupNormalization 21: scale and bias are [C]."""
    rows = _group_rows(xp, x, num_groups)
    _check_per("channel", x.shape[1], scale, bias)
    column = (-1, *(1,) * (x.ndim - 2))
    return _affine(xp, _standardized(xp, rows, epsilon)[0], x, scale.reshape(column), bias.reshape(column))


@kernel("GroupNormalization", 18)
def group_normalization_18(
    xp: ModuleType, x: Array, scale: Array, bias: Array, *, num_groups: int, epsilon: float = 1e-5
) -> Array:
    """GroupNormalization 18: scale and bias are [num_groups]."""
    if num_groups < 1 or x.ndim < 2:
        raise InvalidInput(f"{num_groups} groups of the channels of an input of shape {list(x.shape)}")
    _check_per("group", num_groups, scale, bias)
    each = x.shape[1] // num_groups
    return group_normalization(
        xp, x, xp.repeat(scale, each), xp.repeat(bias, each), num_groups=num_groups, epsilon=epsilon
    )
