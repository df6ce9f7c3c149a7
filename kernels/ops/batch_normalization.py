"""BatchNormalization, InstanceNormalization, LRN (domain ai.onnx, all versions).

Computed in float32, float64 for float64, and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from distort.kernels.errors import InvalidInput
from distort.kernels.registry import kernel

Array = Any


def _wide(xp: ModuleType, a: Array) -> Array:
    return a.astype(xp.float32) if a.dtype.itemsize < 4 else a


def _parameters(x: Array, spatial: int, **named: Array) -> None:
    expected = (x.shape[1] if x.ndim > 1 else 1,) if spatial else x.shape[1:]
    for name, value in named.items():
        if value.shape != expected:
            raise InvalidInput(
                f"Invalid input {name}: its shape {list(value.shape)} is not {list(expected)} for X {list(x.shape)}"
            )


def _along_channels(xp: ModuleType, x: Array, spatial: int, parameter: Array) -> Array:
    """The parameter in the dtype of the computation, shaped to broadcast to x."""
    dtype = xp.float64 if x.dtype == xp.float64 else xp.float32
    parameter = parameter.astype(dtype, copy=False)
    return parameter.reshape(-1, *(1,) * (x.ndim - 2)) if spatial and x.ndim > 2 else parameter


def _inference(
    xp: ModuleType, x: Array, scale: Array, b: Array, mean: Array, var: Array, epsilon: float, spatial: int
) -> Array:
    scale, b, mean, var = (_along_channels(xp, x, spatial, p) for p in (scale, b, mean, var))
    factor = scale / xp.sqrt(var + var.dtype.type(epsilon))
    y = _wide(xp, x) * factor
    y += b - mean * factor
    return y.astype(x.dtype, copy=False)


def _training(
    xp: ModuleType,
    x: Array,
    scale: Array,
    b: Array,
    mean: Array,
    var: Array,
    epsilon: float,
    momentum: float,
    spatial: int,
) -> tuple[Array, ...]:
    """(y, running mean, running variance, batch mean, batch variance); the variance is the population's."""
    wide = _wide(xp, x)
    axes: Any = (0, *range(2, x.ndim)) if spatial else 0
    batch_mean = wide.mean(axis=axes, keepdims=True)
    centred = wide - batch_mean
    batch_var = (centred * centred).mean(axis=axes, keepdims=True)
    centred *= _along_channels(xp, x, spatial, scale) / xp.sqrt(batch_var + batch_var.dtype.type(epsilon))
    centred += _along_channels(xp, x, spatial, b)
    batch_mean, batch_var = batch_mean.reshape(mean.shape), batch_var.reshape(var.shape)
    running = [
        (old.astype(new.dtype) * momentum + new * (1 - momentum)).astype(old.dtype)
        for old, new in ((mean, batch_mean), (var, batch_var))
    ]
    return (
        centred.astype(x.dtype, copy=False),
        *running,
        batch_mean.astype(mean.dtype, copy=False),
        batch_var.astype(var.dtype, copy=False),
    )


@kernel("BatchNormalization", since=14)
def batch_normalization(
    xp: ModuleType,
    x: Array,
    scale: Array,
    b: Array,
    input_mean: Array,
    input_var: Array,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Array | tuple[Array, ...]:
    _parameters(x, 1, scale=scale, B=b, input_mean=input_mean, input_var=input_var)
    if training_mode:
        return _training(xp, x, scale, b, input_mean, input_var, epsilon, momentum, 1)[:3]
    return _inference(xp, x, scale, b, input_mean, input_var, epsilon, 1)


@kernel("BatchNormalization", since=1)
def batch_normalization_by_outputs(
    xp: ModuleType,
    x: Array,
    scale: Array,
    b: Array,
    mean: Array,
    var: Array,
    *,
    consumed_inputs: Sequence[int] | None = None,
    epsilon: float = 1e-5,
    is_test: int = 0,
    momentum: float = 0.9,
    spatial: int = 1,
    n_outputs: int = 1,
) -> Array | tuple[Array, ...]:
    """Versions 1 to 9: a node with one output is inference, one with more is training."""
    _parameters(x, spatial, scale=scale, B=b, mean=mean, var=var)
    if n_outputs == 1 or is_test:
        return _inference(xp, x, scale, b, mean, var, epsilon, spatial)
    return _training(xp, x, scale, b, mean, var, epsilon, momentum, spatial)


@kernel("InstanceNormalization", since=1)
def instance_normalization(
    xp: ModuleType,
    x: Array,
    scale: Array,
    b: Array,
    *,
    consumed_inputs: Sequence[int] | None = None,
    epsilon: float = 1e-5,
) -> Array:
    if x.ndim < 3:
        raise InvalidInput(f"Invalid input data: number of dimensions is less than 3: {x.ndim}")
    _parameters(x, 1, scale=scale, B=b)
    axes = tuple(range(2, x.ndim))
    wide = _wide(xp, x)
    y = wide - wide.mean(axis=axes, keepdims=True)
    variance = (y * y).mean(axis=axes, keepdims=True)
    y *= _along_channels(xp, x, 1, scale) / xp.sqrt(variance + variance.dtype.type(epsilon))
    y += _along_channels(xp, x, 1, b)
    return y.astype(x.dtype, copy=False)


@kernel("LRN", since=1)
def lrn(xp: ModuleType, x: Array, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Array:
    """x / (bias + alpha / size * sum of squares over ``size`` neighbouring channels) ** beta"""
    if x.ndim < 2 or size < 1:
        raise InvalidInput(f"LRN needs a channel axis and a positive size: X {list(x.shape)}, size {size}")
    wide = _wide(xp, x)
    channels = x.shape[1]
    before = (size - 1) // 2
    squares = xp.zeros((x.shape[0], channels + size - 1, *x.shape[2:]), wide.dtype)
    xp.multiply(wide, wide, out=squares[:, before : before + channels])
    total = squares[:, :channels].copy()
    for offset in range(1, size):
        total += squares[:, offset : offset + channels]
    total *= total.dtype.type(alpha / size)
    total += total.dtype.type(bias)
    if beta == 0.75:
        root = xp.sqrt(total)
        power = root * xp.sqrt(root)
    else:
        power = total ** total.dtype.type(beta)
    return (wide / power).astype(x.dtype, copy=False)
