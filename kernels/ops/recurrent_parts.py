"""What RNN, GRU and LSTM share: gate activations, the check of their inputs, and the order of time steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput

Array = Any
_InPlace = Callable[[ModuleType, Array, float, float], None]


def _sigmoid(xp: ModuleType, x: Array, alpha: float, beta: float) -> None:
    x *= 0.5  # 1 / (1 + exp(-x)) is (1 + tanh(x / 2)) / 2, which can't overflow
    xp.tanh(x, out=x)
    x *= 0.5
    x += 0.5


def _tanh(xp: ModuleType, x: Array, alpha: float, beta: float) -> None:
    xp.tanh(x, out=x)


def _relu(xp: ModuleType, x: Array, alpha: float, beta: float) -> None:
    xp.maximum(x, 0, out=x)


def _affine(xp: ModuleType, x: Array, alpha: float, beta: float) -> None:
    x *= alpha
    x += beta


def _leaky_relu(xp: ModuleType, x: Array, alpha: float, beta: float) -> None:
    x[...] = xp.where(x >= 0, x, alpha * x)


def _thresholded_relu(xp: ModuleType, x: Array, alpha: float, beta: float) -> None:
    x[...] = xp.where(x >= alpha, x, 0)


def _scaled_tanh(xp: ModuleType, x: Array, alpha: float, beta: float) -> None:
    x *= beta
    xp.tanh(x, out=x)
    x *= alpha


def _hard_sigmoid(xp: ModuleType, x: Array, alpha: float, beta: float) -> None:
    _affine(xp, x, alpha, beta)
    xp.clip(x, 0, 1, out=x)


def _elu(xp: ModuleType, x: Array, alpha: float, beta: float) -> None:
    x[...] = xp.where(x >= 0, x, alpha * xp.expm1(x))


def _softsign(xp: ModuleType, x: Array, alpha: float, beta: float) -> None:
    x /= 1 + xp.abs(x)


def _softplus(xp: ModuleType, x: Array, alpha: float, beta: float) -> None:
    xp.logaddexp(x, x.dtype.type(0), out=x)


#: lower-case name -> (function, default alpha, default beta); None: it has no such parameter and consumes none
_ACTIVATIONS: dict[str, tuple[_InPlace, float | None, float | None]] = {
    "sigmoid": (_sigmoid, None, None),
    "tanh": (_tanh, None, None),
    "relu": (_relu, None, None),
    "affine": (_affine, 1.0, 0.0),
    "leakyrelu": (_leaky_relu, 0.01, None),
    "thresholdedrelu": (_thresholded_relu, 1.0, None),
    "scaledtanh": (_scaled_tanh, 1.0, 1.0),
    "hardsigmoid": (_hard_sigmoid, 0.2, 0.5),
    "elu": (_elu, 1.0, None),
    "softsign": (_softsign, None, None),
    "softplus": (_softplus, None, None),
}


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation with its parameters; a call overwrites the array."""

    function: _InPlace
    alpha: float
    beta: float

    def __call__(self, xp: ModuleType, x: Array) -> None:
        self.function(xp, x, self.alpha, self.beta)


def activations_of(
    names: Sequence[str], alphas: Sequence[float] | None, betas: Sequence[float] | None, count: int
) -> list[Activation]:
    """The first ``count`` activations; those with a parameter take the next value of ``alphas`` or ``betas``."""
    if len(names) < count:
        raise InvalidInput(f"{count} activations are needed, got {list(names)}")
    next_alpha, next_beta = iter(alphas or ()), iter(betas or ())
    found = []
    for name in names[:count]:
        entry = _ACTIVATIONS.get(name.lower())
        if entry is None:
            raise InvalidInput(f"unknown activation {name!r}; known are {', '.join(_ACTIVATIONS)}")
        function, alpha, beta = entry
        alpha = 0.0 if alpha is None else next(next_alpha, alpha)
        beta = 0.0 if beta is None else next(next_beta, beta)
        found.append(Activation(function, alpha, beta))
    return found


@dataclass(slots=True)
class Layer:
    """Checked inputs of a recurrent operator, in float32 or float64, time first."""

    x: Array  # [T, B, I]
    initial: tuple[Array | None, ...]  # each [D, B, H]
    lengths: np.ndarray[Any, Any] | None  # [B], where a sequence is shorter than T
    directions: tuple[bool, ...]  # for each: whether it runs backwards
    hidden: int
    dtype: Any  # of the results
    batch_first: bool

    @property
    def steps(self) -> int:
        return int(self.x.shape[0])

    @property
    def batch(self) -> int:
        return int(self.x.shape[1])

    @property
    def used(self) -> int:
        """Steps that any sequence has."""
        return self.steps if self.lengths is None else int(self.lengths.max(initial=0))

    def walk(self, xp: ModuleType, backwards: bool) -> Iterator[tuple[int, Array | None]]:
        """(time, [B, 1] mask of the sequences that have it, or None for all), in the direction's order."""
        times = range(self.used - 1, -1, -1) if backwards else range(self.used)
        if self.lengths is None:
            for time in times:
                yield time, None
            return
        shortest, column = int(self.lengths.min(initial=self.steps)), self.lengths[:, None]
        for time in times:
            yield time, None if time < shortest else xp.asarray(column > time)

    def result(self, xp: ModuleType, y: Array) -> Array:
        """Y [T, D, B, H] or a last state [D, B, H], in the layout and type of the operator."""
        if self.batch_first:
            y = xp.moveaxis(y, -2, 0)
        return y.astype(self.dtype, copy=False)

    def last(self, xp: ModuleType, states: list[Array]) -> Array:
        """The last state [B, H] of each direction as a result. As in onnxruntime that of an empty sequence is zero."""
        stacked = xp.stack(states)
        if self.lengths is not None and not self.lengths.all():
            xp.copyto(stacked, 0, where=xp.asarray(self.lengths == 0)[:, None])
        return self.result(xp, stacked)


def layer_of(
    xp: ModuleType,
    x: Array,
    hidden: int,
    n_directions: int,
    direction: str,
    layout: int,
    hidden_size: int | None,
    lengths: np.ndarray[Any, Any] | None,
    *initial: Array | None,
) -> Layer:
    """Check and normalize what the three operators have in common. Raises InvalidInput."""
    known = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    directions = known.get(direction.lower())
    if directions is None:
        raise InvalidInput(f"direction {direction!r} is none of {', '.join(known)}")
    if len(directions) != n_directions:
        raise InvalidInput(f"direction {direction} with weights for {n_directions} directions")
    if hidden_size is not None and hidden_size != hidden:
        raise InvalidInput(f"hidden_size is {hidden_size}, the weights have {hidden}")
    if x.ndim != 3:
        raise InvalidInput(f"Input X must have 3 dimensions only. Actual: {list(x.shape)}")
    dtype = x.dtype
    compute = dtype if dtype.itemsize >= 4 else np.dtype(np.float32)
    if layout:
        x = xp.swapaxes(x, 0, 1)
        initial = tuple(None if state is None else xp.swapaxes(state, 0, 1) for state in initial)
    steps, batch, _ = x.shape
    for state in initial:
        if state is not None and state.shape != (n_directions, batch, hidden):
            raise InvalidInput(
                f"an initial state needs shape {[n_directions, batch, hidden]} (time first), it has {list(state.shape)}"
            )
    if lengths is not None:
        if lengths.shape != (batch,):
            raise InvalidInput(f"sequence_lens of shape {list(lengths.shape)} for a batch of {batch}")
        if batch and (int(lengths.min()) < 0 or int(lengths.max()) > steps):
            raise InvalidInput(f"sequence_lens must lie in 0..{steps}: {lengths.tolist()}")
        if (lengths == steps).all():
            lengths = None
    return Layer(
        x.astype(compute, copy=False),
        tuple(None if state is None else state.astype(compute, copy=False) for state in initial),
        lengths,
        directions,
        hidden,
        dtype,
        bool(layout),
    )


def check_shape(name: str, value: Array | None, *shape: int) -> None:
    if value is not None and value.shape != shape:
        raise InvalidInput(f"Input {name} must have shape {list(shape)}. Actual: {list(value.shape)}")
