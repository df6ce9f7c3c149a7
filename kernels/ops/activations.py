"""Activation functions. Each makes one temporary of the result's size and works in place on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.arithmetic import as_array
from distort.kernels.ops.mathematics import erf, is_narrow
from distort.kernels.registry import kernel


def in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compute narrow floats in float32 and round once."""

    def widened(xp: Any, x: Any, *others: Any, **attributes: Any) -> Any:
        if is_narrow(x.dtype):
            wide = [other.astype(np.float32) for other in others]
            return as_array(xp, function(xp, x.astype(np.float32), *wide, **attributes).astype(x.dtype))
        return as_array(xp, function(xp, x, *others, **attributes))

    return widened


def sigmoid_of(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)) as a new array."""
    result = xp.empty(x.shape, dtype=x.dtype)
    xp.negative(x, out=result)
    xp.exp(result, out=result)
    result += x.dtype.type(1)
    return xp.reciprocal(result, out=result)


def softplus_of(xp: Any, x: Any) -> Any:
    """log(1 + exp(x)) without overflow."""
    return xp.log1p(xp.exp(-xp.abs(x))) + xp.maximum(x, 0)


def tanh_of(xp: Any, x: Any) -> Any:
    return xp.tanh(x)


_relu = in_float32(lambda xp, x: xp.maximum(x, x.dtype.type(0)))
_sigmoid = in_float32(sigmoid_of)
_softplus = in_float32(softplus_of)


@kernel("Relu")
def relu(xp: Any, x: Any, *, consumed_inputs: Any = None) -> Any:
    if x.dtype.kind in "fiu":
        return as_array(xp, xp.maximum(x, x.dtype.type(0)))
    return _relu(xp, x)


@kernel("Sigmoid")
def sigmoid(xp: Any, x: Any, *, consumed_inputs: Any = None) -> Any:
    return _sigmoid(xp, x)


@kernel("Softplus")
def softplus(xp: Any, x: Any) -> Any:
    return _softplus(xp, x)


@kernel("Softsign")
def softsign(xp: Any, x: Any) -> Any:
    return in_float32(lambda xp, x: x / (1 + xp.abs(x)))(xp, x)


def _linear_clip(xp: Any, x: Any, *, alpha: float, beta: float) -> Any:
    kind = x.dtype.type
    result = xp.multiply(x, kind(alpha))
    result = result + kind(beta)
    return xp.minimum(xp.maximum(result, kind(0)), kind(1))


@kernel("HardSigmoid")
def hard_sigmoid(xp: Any, x: Any, *, alpha: float = 0.2, beta: float = 0.5, consumed_inputs: Any = None) -> Any:
    return in_float32(_linear_clip)(xp, x, alpha=alpha, beta=beta)


@kernel("HardSwish", 14)
def hard_swish(xp: Any, x: Any) -> Any:
    return in_float32(lambda xp, x: x * _linear_clip(xp, x, alpha=1 / 6, beta=0.5))(xp, x)


@kernel("Swish", 24)
def swish(xp: Any, x: Any, *, alpha: float = 1.0) -> Any:
    return in_float32(lambda xp, x: x * sigmoid_of(xp, x * x.dtype.type(alpha)))(xp, x)


@kernel("Mish", 18)
def mish(xp: Any, x: Any) -> Any:
    return in_float32(lambda xp, x: x * xp.tanh(softplus_of(xp, x)))(xp, x)


@kernel("Gelu", 20)
def gelu(xp: Any, x: Any, *, approximate: str = "none") -> Any:
    if approximate not in ("none", "tanh"):
        raise InvalidInput(f"Gelu has no approximation {approximate!r}")
    return in_float32(gelu_of)(xp, x, approximate=approximate)


def gelu_of(xp: Any, x: Any, *, approximate: str = "none") -> Any:
    kind = x.dtype.type
    if approximate == "tanh":
        inner = (x * x * x * kind(0.044715) + x) * kind(np.sqrt(2 / np.pi))
        factor = xp.tanh(inner)
    else:
        factor = erf(xp, x * kind(np.sqrt(0.5)))
    factor = factor + kind(1)
    return factor * x * kind(0.5)


@kernel("Elu")
def elu(xp: Any, x: Any, *, alpha: float = 1.0, consumed_inputs: Any = None) -> Any:
    return in_float32(lambda xp, x: xp.where(x < 0, x.dtype.type(alpha) * xp.expm1(x), x))(xp, x)


@kernel("Celu", 12)
def celu(xp: Any, x: Any, *, alpha: float = 1.0) -> Any:
    def compute(xp: Any, x: Any) -> Any:
        kind = x.dtype.type
        return xp.maximum(x, kind(0)) + xp.minimum(kind(alpha) * xp.expm1(x / kind(alpha)), kind(0))

    return in_float32(compute)(xp, x)


@kernel("Selu", 1)
def selu_1(xp: Any, x: Any, *, alpha: float = 1.6732, gamma: float = 1.0507, consumed_inputs: Any = None) -> Any:
    return selu(xp, x, alpha=alpha, gamma=gamma)


@kernel("Selu", 6)
def selu(xp: Any, x: Any, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Any:
    def compute(xp: Any, x: Any) -> Any:
        kind = x.dtype.type
        return kind(gamma) * xp.where(x > 0, x, kind(alpha) * xp.expm1(x))

    return in_float32(compute)(xp, x)


@kernel("LeakyRelu")
def leaky_relu(xp: Any, x: Any, *, alpha: float = 0.01, consumed_inputs: Any = None) -> Any:
    return in_float32(lambda xp, x: xp.where(x < 0, x * x.dtype.type(alpha), x))(xp, x)


@kernel("PRelu", 1)
def prelu_1(xp: Any, x: Any, slope: Any, *, consumed_inputs: Any = None) -> Any:
    """Until version 6 a slope of several values is one a channel."""
    per_channel = slope.size > 1 and slope.ndim == 1 and x.ndim > 1
    return prelu(xp, x, slope.reshape(-1, *[1] * (x.ndim - 2)) if per_channel else slope)


@kernel("PRelu", 7)
def prelu(xp: Any, x: Any, slope: Any) -> Any:
    if x.dtype.kind in "iu":
        return as_array(xp, xp.where(x < 0, x * slope, x))
    return in_float32(lambda xp, x, slope: xp.where(x < 0, x * slope, x))(xp, x, slope)


@kernel("ThresholdedRelu", 10)
def thresholded_relu(xp: Any, x: Any, *, alpha: float = 1.0) -> Any:
    return as_array(xp, xp.where(x > x.dtype.type(alpha), x, x.dtype.type(0)))


@kernel("Shrink", 9)
def shrink(xp: Any, x: Any, *, bias: float = 0.0, lambd: float = 0.5) -> Any:
    def compute(xp: Any, x: Any) -> Any:
        low, high = x < -lambd, x > lambd
        return (low * (x + bias) + high * (x - bias)).astype(x.dtype)

    if x.dtype.kind in "iu":
        wide = x.astype(np.float64)
        return as_array(xp, compute(xp, wide).astype(x.dtype))
    return in_float32(compute)(xp, x)


@kernel("Clip", 1)
def clip(xp: Any, x: Any, low: Any = None, high: Any = None, *, consumed_inputs: Any = None) -> Any:
    """A lower bound above the upper one gives the upper."""
    if low is not None:
        if low.size != 1:
            raise InvalidInput(f"min of Clip must be a scalar, not shape {list(low.shape)}")
        x = xp.maximum(x, low.reshape(()))
    if high is not None:
        if high.size != 1:
            raise InvalidInput(f"max of Clip must be a scalar, not shape {list(high.shape)}")
        x = xp.minimum(x, high.reshape(()))
    return as_array(xp, x)
