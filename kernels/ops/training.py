"""Steps of optimizers: Adagrad, Adam, Momentum (ai.onnx.preview.training 1).

Inputs: the learning rate R, the count of updates so far T, then all tensors X, all gradients G, and the states, each
group in the order of the tensors. Outputs: the new tensors, then the new states.
"""

from __future__ import annotations

import math
from typing import Any

from distort.kernels.errors import InvalidInput
from distort.kernels.registry import kernel

_DOMAIN = "ai.onnx.preview.training"


def _groups(tensors: tuple[Any, ...], size: int) -> list[tuple[Any, ...]]:
    """Each tensor with its gradient and states."""
    if len(tensors) % size:
        raise InvalidInput(f"{len(tensors)} tensors are no multiple of {size}")
    count = len(tensors) // size
    found = [tuple(tensors[part * count + i] for part in range(size)) for i in range(count)]
    for group in found:
        if any(item.shape != group[0].shape for item in group):
            raise InvalidInput(f"a tensor, its gradient and states have shapes {[list(item.shape) for item in group]}")
    return found


def _outputs(xp: Any, results: list[tuple[Any, ...]], like: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        xp.asarray(item).astype(like[0].dtype, copy=False) for part in zip(*results, strict=True) for item in part
    )


def _number(value: Any) -> float:
    return float(value.reshape(()).item())


@kernel("Adagrad", domain=_DOMAIN, host=(0, 1))
def adagrad(
    xp: Any,
    rate: Any,
    count: Any,
    *tensors: Any,
    norm_coefficient: float = 0.0,
    decay_factor: float = 0.0,
    epsilon: float = 1e-6,
) -> Any:
    step = _number(rate) / (1 + _number(count) * decay_factor)
    results = []
    for x, gradient, squares in _groups(tensors, 3):
        regular = norm_coefficient * x + gradient
        squares = squares + regular * regular
        results.append((x - step * regular / (xp.sqrt(squares) + epsilon), squares))
    return _outputs(xp, results, tensors)


@kernel("Adam", domain=_DOMAIN, host=(0, 1))
def adam(
    xp: Any,
    rate: Any,
    count: Any,
    *tensors: Any,
    alpha: float = 0.9,
    beta: float = 0.999,
    epsilon: float = 1e-6,
    norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0,
) -> Any:
    step, updates = _number(rate), _number(count)
    if updates > 0:
        step *= math.sqrt(1 - beta**updates) / (1 - alpha**updates)
    results = []
    for x, gradient, mean, square in _groups(tensors, 4):
        regular = norm_coefficient * x + gradient
        mean = alpha * mean + (1 - alpha) * regular
        square = beta * square + (1 - beta) * (regular * regular)
        moved = x - step * mean / (xp.sqrt(square) + epsilon)
        results.append(((1 - norm_coefficient_post) * moved, mean, square))
    return _outputs(xp, results, tensors)


@kernel("Momentum", domain=_DOMAIN, host=(0, 1))
def momentum(
    xp: Any, rate: Any, count: Any, *tensors: Any, alpha: float, beta: float, mode: str, norm_coefficient: float
) -> Any:
    if mode not in ("standard", "nesterov"):
        raise InvalidInput(f"mode is {mode!r}, expected standard or nesterov")
    step = _number(rate)
    share = beta if _number(count) > 0 else 1.0
    results = []
    for x, gradient, velocity in _groups(tensors, 3):
        regular = norm_coefficient * x + gradient
        velocity = alpha * velocity + share * regular
        direction = regular + alpha * velocity if mode == "nesterov" else velocity
        results.append((x - step * direction, velocity))
    return _outputs(xp, results, tensors)
