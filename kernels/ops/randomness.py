"""Random numbers: RandomNormal, RandomUniform, their Like forms, Bernoulli, Multinomial, Dropout.

The numbers are not onnxruntime's. A node with a seed has a generator of its own from the time its program is made:
runs go on in its sequence, and programs made anew repeat it. Nodes without a seed share one generator a process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distort.graph.types import DTYPE_OF
from distort.kernels.errors import InvalidInput
from distort.kernels.ops.elementwise import as_array, dtype_of, rounded, working
from distort.kernels.registry import kernel


class _Shared:
    """The generator of nodes without a seed."""

    generator = np.random.default_rng()


def _generator(seed: float | int | None) -> np.random.Generator | None:
    """A seeded node's own generator: seeds that differ as float32 give sequences that differ."""
    if seed is None:
        return None
    return np.random.default_rng(int(np.asarray(seed, dtype=np.float64).view(np.uint64)))


def _draw(own: np.random.Generator | None) -> np.random.Generator:
    return _Shared.generator if own is None else own


def _dtype(number: int | None, like: Any = None) -> Any:
    dtype = like.dtype if number is None else DTYPE_OF.get(number)
    if dtype is None or not (dtype.kind == "f" or dtype.name == "bfloat16"):
        raise InvalidInput(f"random numbers of element type {number or dtype} are not supported")
    return dtype


#: (shape, float32 or float64) -> numbers
_Sampler = Callable[[Sequence[int], Any], Any]


def _sample(xp: Any, sampler: _Sampler, shape: Sequence[int], dtype: Any) -> Any:
    drawn_as = np.float64 if dtype == np.float64 else np.float32
    return xp.asarray(sampler(shape, drawn_as).astype(dtype, copy=False))


def _affine(draw: str, factor: float, offset: float, seed: float | None) -> _Sampler:
    """Numbers of a generator's method ``draw``, times ``factor``, plus ``offset``."""
    own = _generator(seed)

    def sample(shape: Sequence[int], dtype: Any) -> Any:
        values = np.asarray(getattr(_draw(own), draw)(tuple(shape), dtype=dtype))
        values *= dtype(factor)
        values += dtype(offset)
        return values

    return sample


def _prepare_normal(
    *,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
    dtype: int | None = None,
    shape: Sequence[int] | None = None,
) -> dict[str, Any]:
    return {"sampler": _affine("standard_normal", scale, mean, seed), "dtype": dtype, "shape": shape}


def _prepare_uniform(
    *,
    low: float = 0.0,
    high: float = 1.0,
    seed: float | None = None,
    dtype: int | None = None,
    shape: Sequence[int] | None = None,
) -> dict[str, Any]:
    return {"sampler": _affine("random", high - low, low, seed), "dtype": dtype, "shape": shape}


@kernel("RandomNormal", prepare=_prepare_normal)
@kernel("RandomUniform", prepare=_prepare_uniform)
def random(xp: Any, *, sampler: _Sampler, dtype: int | None, shape: Sequence[int] | None) -> Any:
    return _sample(xp, sampler, shape or (), _dtype(1 if dtype is None else dtype))


@kernel("RandomNormalLike", prepare=_prepare_normal)
@kernel("RandomUniformLike", prepare=_prepare_uniform)
def random_like(xp: Any, x: Any, *, sampler: _Sampler, dtype: int | None, shape: None = None) -> Any:
    return _sample(xp, sampler, x.shape, _dtype(dtype, x))


def _prepare_bernoulli(*, dtype: int | None = None, seed: float | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "generator": _generator(seed)}


@kernel("Bernoulli", 15, prepare=_prepare_bernoulli)
def bernoulli(xp: Any, x: Any, *, dtype: int | None, generator: np.random.Generator | None) -> Any:
    """1 with the probability that x holds."""
    drawn = xp.asarray(_draw(generator).random(x.shape))
    return as_array(xp, (drawn < x.astype(xp.float64)).astype(x.dtype if dtype is None else dtype_of(dtype)))


def _prepare_multinomial(*, dtype: int = 6, sample_size: int = 1, seed: float | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "sample_size": sample_size, "generator": _generator(seed)}


@kernel("Multinomial", 7, prepare=_prepare_multinomial)
def multinomial(xp: Any, x: Any, *, dtype: int, sample_size: int, generator: np.random.Generator | None) -> Any:
    """Classes drawn with the unnormalized log-probabilities x: [batch, classes] -> [batch, sample_size]."""
    if x.ndim != 2 or not x.shape[1]:
        raise InvalidInput(f"input of Multinomial has shape {list(x.shape)}, expected [batch, classes]")
    if dtype not in (6, 7):
        raise InvalidInput(f"output of Multinomial is int32 or int64, not element type {dtype}")
    if sample_size < 1:
        raise InvalidInput(f"sample_size is {sample_size}, expected 1 or more")
    logits = x.astype(xp.float64)
    reach = xp.cumsum(xp.exp(logits - xp.max(logits, axis=1, keepdims=True)), axis=1)
    reach /= reach[:, -1:]
    rows, classes = x.shape
    drawn = xp.asarray(_draw(generator).random((rows, sample_size)))
    # one search for all rows: row r's distribution function is moved to (r, r + 1]
    offset = xp.arange(rows, dtype=xp.float64)[:, None]
    found = xp.searchsorted((reach + offset).ravel(), (drawn + offset).ravel(), side="right")
    found = found.reshape(rows, sample_size) - xp.arange(rows)[:, None] * classes
    return xp.clip(found, 0, classes - 1).astype(dtype_of(dtype))


def _training_dropout(xp: Any, x: Any, ratio: float, generator: np.random.RandomState | None) -> tuple[Any, Any]:
    """x with each element zeroed with probability ``ratio`` and the others scaled by 1 / (1 - ratio); what was kept."""
    if not 0 <= ratio < 1:
        raise InvalidInput(f"ratio is {ratio}, expected in [0, 1)")
    drawn = _Shared.generator.random(x.shape) if generator is None else generator.random_sample(x.shape)
    kept = xp.asarray(drawn >= ratio)
    wide = working(xp, x)
    return rounded(xp, xp.where(kept, wide / wide.dtype.type(1 - ratio), wide.dtype.type(0)), x), kept


def _ratio(ratio: Any) -> float:
    return 0.5 if ratio is None else float(ratio.reshape(()).item())


def _dropout(
    xp: Any, x: Any, ratio: Any, training: bool, n_outputs: int, mask_dtype: Any, generator: Any = None
) -> Any:
    if training and _ratio(ratio):
        result, mask = _training_dropout(xp, x, _ratio(ratio), generator)
        return (result, mask.astype(mask_dtype)) if n_outputs > 1 else result
    return (x, xp.ones(x.shape, dtype=mask_dtype)) if n_outputs > 1 else x


@kernel("Dropout", host=(1,))
def dropout_1(
    xp: Any, x: Any, ratio: Any = None, *, is_test: int = 0, consumed_inputs: Any = None, n_outputs: int = 1
) -> Any:
    """Versions 1 and 6 train unless told otherwise; ``ratio`` was an attribute until 12."""
    return _dropout(xp, x, ratio, not is_test, n_outputs, x.dtype)


@kernel("Dropout", 7, host=(1,))
def dropout_7(xp: Any, x: Any, ratio: Any = None, *, n_outputs: int = 1) -> Any:
    return _dropout(xp, x, ratio, False, n_outputs, x.dtype)


@kernel("Dropout", 10, host=(1,))
def dropout_10(xp: Any, x: Any, ratio: Any = None, *, n_outputs: int = 1) -> Any:
    return _dropout(xp, x, ratio, False, n_outputs, bool)


def _prepare_dropout(*, seed: int | None = None) -> dict[str, Any]:
    """The generator is numpy's older one: the standard's own examples of Dropout are drawn from it."""
    return {"generator": None if seed is None else np.random.RandomState(seed & 0xFFFFFFFF)}


@kernel("Dropout", 12, host=(1, 2), prepare=_prepare_dropout)
def dropout(
    xp: Any,
    x: Any,
    ratio: Any = None,
    training: Any = None,
    *,
    generator: np.random.RandomState | None,
    n_outputs: int = 1,
) -> Any:
    train = training is not None and bool(training.reshape(()).item())
    return _dropout(xp, x, ratio, train, n_outputs, bool, generator)
