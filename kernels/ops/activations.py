"""Activations: the Relu, Elu and Sigmoid families, Softplus, Softsign, Gelu, Mish, Swish, PRelu, Shrink."""

from __future__ import annotations

import math
from typing import Any

from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.ops.elementwise import as_array, blockwise, positive_part, rounded, working
from distort.kernels.ops.mathematics import erf_into
from distort.kernels.registry import kernel

#: elements from which calls in blocks pay
_SMALL = 2048


@kernel("Relu")
def relu(xp: Any, x: Any, *, consumed_inputs: Any = None) -> Any:
    if x.size < _SMALL or x.dtype.kind != "f":
        return as_array(xp, xp.maximum(x, 0))
    return blockwise(xp, x, positive_part)


def sigmoid_into(xp: Any, x: Any, out: Any) -> None:
    """1 / (1 + exp(-x)); exp overflows to infinity where the result is 0. ``out`` may be x."""
    xp.negative(x, out=out)
    xp.exp(out, out=out)
    out += 1
    xp.reciprocal(out, out=out)


@kernel("Sigmoid")
def sigmoid(xp: Any, x: Any, *, consumed_inputs: Any = None) -> Any:
    return blockwise(xp, x, sigmoid_into)


@kernel("HardSigmoid")
def hard_sigmoid(xp: Any, x: Any, *, alpha: float = 0.2, beta: float = 0.5, consumed_inputs: Any = None) -> Any:
    def formula(xp: Any, x: Any, out: Any) -> None:
        xp.multiply(x, alpha, out=out)
        out += beta
        xp.clip(out, 0, 1, out=out)

    return blockwise(xp, x, formula)


@kernel("HardSwish", 14)
def hard_swish(xp: Any, x: Any) -> Any:
    def formula(xp: Any, x: Any, out: Any) -> None:
        xp.multiply(x, 1 / 6, out=out)
        out += 0.5
        xp.clip(out, 0, 1, out=out)
        out *= x

    return blockwise(xp, x, formula)


@kernel("Softsign")
def softsign(xp: Any, x: Any) -> Any:
    def formula(xp: Any, x: Any, out: Any) -> None:
        xp.abs(x, out=out)
        out += 1
        xp.divide(x, out, out=out)

    return blockwise(xp, x, formula)


@kernel("Softplus")
def softplus(xp: Any, x: Any) -> Any:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), which does not overflow."""

    def formula(xp: Any, x: Any, out: Any) -> None:
        xp.abs(x, out=out)
        xp.negative(out, out=out)
        xp.exp(out, out=out)
        xp.log1p(out, out=out)
        positive = xp.empty_like(out)
        positive_part(xp, x, positive)
        out += positive

    return blockwise(xp, x, formula)


@kernel("LeakyRelu")
def leaky_relu(xp: Any, x: Any, *, alpha: float = 0.01, consumed_inputs: Any = None) -> Any:
    def formula(xp: Any, x: Any, out: Any) -> None:
        xp.multiply(x, alpha, out=out)
        if 0 < alpha <= 1:
            xp.maximum(out, x, out=out)
        else:
            xp.copyto(out, x, where=x >= 0)

    return blockwise(xp, x, formula)


def _elu(xp: Any, x: Any, alpha: float, gamma: float = 1.0) -> Any:
    """gamma * (max(x, 0) + alpha * expm1(min(x, 0)))."""

    def formula(xp: Any, x: Any, out: Any) -> None:
        xp.minimum(x, 0, out=out)
        xp.expm1(out, out=out)
        out *= alpha
        positive = xp.empty_like(out)
        positive_part(xp, x, positive)
        out += positive
        if gamma != 1.0:
            out *= gamma

    return blockwise(xp, x, formula)


@kernel("Elu")
def elu(xp: Any, x: Any, *, alpha: float = 1.0, consumed_inputs: Any = None) -> Any:
    return _elu(xp, x, alpha)


@kernel("Selu")
def selu_1(xp: Any, x: Any, *, alpha: float = 1.6732, gamma: float = 1.0507, consumed_inputs: Any = None) -> Any:
    return _elu(xp, x, alpha, gamma)


@kernel("Selu", 6)
def selu(xp: Any, x: Any, *, alpha: float = 1.6732631921768188, gamma: float = 1.0507010221481323) -> Any:
    return _elu(xp, x, alpha, gamma)


@kernel("Celu", 12)
def celu(xp: Any, x: Any, *, alpha: float = 1.0) -> Any:
    """max(0, x) + min(0, alpha * expm1(x / alpha))."""

    def formula(xp: Any, x: Any, out: Any) -> None:
        xp.divide(x, alpha, out=out)
        xp.expm1(out, out=out)
        out *= alpha
        xp.minimum(out, 0, out=out)
        positive = xp.empty_like(out)
        positive_part(xp, x, positive)
        out += positive

    return blockwise(xp, x, formula)


@kernel("Gelu", 20)
def gelu(xp: Any, x: Any, *, approximate: str = "none") -> Any:
    if approximate not in ("none", "tanh"):
        raise InvalidInput(f"approximate is {approximate!r}, expected 'none' or 'tanh'")

    def exact(xp: Any, x: Any, out: Any) -> None:
        xp.multiply(x, math.sqrt(0.5), out=out)
        erf_into(xp, out, out)
        out += 1
        out *= x
        out *= 0.5

    def by_tanh(xp: Any, x: Any, out: Any) -> None:
        xp.multiply(x, x, out=out)
        out *= 0.044715
        out += 1
        out *= x
        out *= math.sqrt(2 / math.pi)
        xp.tanh(out, out=out)
        out += 1
        out *= x
        out *= 0.5

    return blockwise(xp, x, by_tanh if approximate == "tanh" else exact)


@kernel("Mish", 18)
def mish(xp: Any, x: Any) -> Any:
    """x * tanh(softplus(x)) = x * n / (n + 2) with n = exp(x) * (exp(x) + 2); the fraction is 1 from x = 20 on."""

    def formula(xp: Any, x: Any, out: Any) -> None:
        power = xp.minimum(x, 20)
        xp.exp(power, out=power)
        xp.add(power, 2, out=out)
        out *= power
        xp.add(out, 2, out=power)
        out /= power
        out *= x

    return blockwise(xp, x, formula)


@kernel("Swish", 24)
def swish(xp: Any, x: Any, *, alpha: float = 1.0) -> Any:
    def formula(xp: Any, x: Any, out: Any) -> None:
        xp.multiply(x, alpha, out=out)
        sigmoid_into(xp, out, out)
        out *= x

    return blockwise(xp, x, formula)


@kernel("ThresholdedRelu", 10)
def thresholded_relu(xp: Any, x: Any, *, alpha: float = 1.0) -> Any:
    return xp.where(working(xp, x) > alpha, x, x.dtype.type(0)).astype(x.dtype, copy=False)


@kernel("Shrink", 9)
def shrink(xp: Any, x: Any, *, bias: float = 0.0, lambd: float = 0.5) -> Any:
    """Integers are compared and moved as float64, then cut towards zero."""
    wide = x.astype(xp.float64) if x.dtype.kind in "iu" else working(xp, x)
    above, below = wide > lambd, wide < -lambd
    return rounded(xp, xp.where(below, wide + bias, xp.where(above, wide - bias, wide.dtype.type(0))), x)


def _prelu(xp: Any, x: Any, slope: Any) -> Any:
    wide = working(xp, x)
    scaled = xp.asarray(xp.multiply(wide, working(xp, slope)))
    if scaled.shape != x.shape:
        raise Failed(f"slope of shape {list(slope.shape)} does not broadcast to {list(x.shape)}")
    xp.copyto(scaled, wide, where=wide >= 0)
    return rounded(xp, scaled, x)


@kernel("PRelu", 7)
def prelu(xp: Any, x: Any, slope: Any) -> Any:
    try:
        return _prelu(xp, x, slope)
    except ValueError as error:
        raise Failed(f"slope of shape {list(slope.shape)} does not broadcast to {list(x.shape)}") from error


@kernel("PRelu", (1, 6))
def prelu_1(xp: Any, x: Any, slope: Any, *, consumed_inputs: Any = None) -> Any:
    """One slope for all, or one a channel (dimension 1)."""
    if slope.size == 1:
        return _prelu(xp, x, slope.reshape(()))
    if x.ndim < 2 or slope.shape != (x.shape[1],):
        raise Failed(f"slope of shape {list(slope.shape)} is not one a channel of {list(x.shape)}")
    return _prelu(xp, x, slope.reshape((-1,) + (1,) * (x.ndim - 2)))
