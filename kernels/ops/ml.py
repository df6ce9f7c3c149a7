"""Operators of ai.onnx.ml on rows of features: Scaler, Normalizer, Imputer, Binarizer, FeatureVectorizer,
ArrayFeatureExtractor."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.registry import kernel

Array = Any
_ML = "ai.onnx.ml"


def _features(x: Array) -> int:
    """Length of a row: x is [F] or [N, F], or deeper, where onnxruntime counts along axis 1."""
    if not x.ndim:
        raise InvalidInput("a scalar where rows of features are due")
    return int(x.shape[1] if x.ndim > 1 else x.shape[0])


def _per_feature(name: str, values: Array, x: Array) -> Array:
    """Rows of x [R, F] for values [F], or a flat x for a single value."""
    n = _features(x)
    if values.size == 1:
        return x.reshape(-1, 1)
    if values.size != n:
        raise InvalidInput(f"{name} has {values.size} values for {n} features")
    return x.reshape(-1, n)


def _prepare_scaler(*, offset: Sequence[float] | None = None, scale: Sequence[float] | None = None) -> dict[str, Any]:
    offsets, scales = np.asarray(offset or [0.0], np.float32), np.asarray(scale or [1.0], np.float32)
    if offsets.shape != scales.shape:
        raise InvalidInput(f"Scaler: {offsets.size} offsets and {scales.size} scales")
    return {"offset": offsets, "scale": scales}


@kernel("Scaler", domain=_ML, prepare=_prepare_scaler)
def scaler(xp: ModuleType, x: Array, *, offset: Array, scale: Array) -> Array:
    """Scaler 1: (x - offset) * scale in float32, float64 inputs in float64 before the last rounding."""
    rows = _per_feature("Scaler", offset, x if x.dtype.kind == "f" else x.astype(xp.float32))
    result = rows - xp.asarray(offset)
    result *= xp.asarray(scale)
    return result.astype(xp.float32, copy=False).reshape(x.shape)


@kernel("Normalizer", domain=_ML)
def normalizer(xp: ModuleType, x: Array, *, norm: str = "MAX") -> Array:
    """Normalizer 1: each row of [N, F] or [F] divided by its maximum, L1 or L2 norm. Rows of zeros stay."""
    rows = x.astype(xp.float64 if x.dtype == xp.float64 else xp.float32, copy=False)
    if x.ndim not in (1, 2):
        raise InvalidInput(f"Normalizer needs [N, F] or [F], got {list(x.shape)}")
    if not x.size:
        return x.astype(xp.float32)
    if norm == "MAX":  # as in onnxruntime the largest value, not the largest magnitude
        by = rows.max(axis=-1, keepdims=True)
    elif norm == "L1":
        by = xp.abs(rows).sum(axis=-1, keepdims=True)
    elif norm == "L2":
        by = (rows * rows).sum(axis=-1, keepdims=True)
    else:
        raise InvalidInput(f"norm {norm!r} is none of MAX, L1, L2")
    zero = by == 0
    if norm == "L2":
        by = xp.sqrt(by)
    return xp.where(zero, rows, rows / xp.where(zero, 1, by)).astype(xp.float32, copy=False)


def _prepare_imputer(
    *,
    imputed_value_floats: Sequence[float] | None = None,
    imputed_value_int64s: Sequence[int] | None = None,
    replaced_value_float: float = 0.0,
    replaced_value_int64: int = 0,
) -> dict[str, Any]:
    if bool(imputed_value_floats) == bool(imputed_value_int64s):
        raise InvalidInput("Imputer needs its values either as floats or as integers")
    if imputed_value_floats:
        return {"imputed": np.asarray(imputed_value_floats, np.float32), "replaced": replaced_value_float}
    return {"imputed": np.asarray(imputed_value_int64s, np.int64), "replaced": replaced_value_int64}


@kernel("Imputer", domain=_ML, prepare=_prepare_imputer)
def imputer(xp: ModuleType, x: Array, *, imputed: Array, replaced: float) -> Array:
    """Imputer 1: another value in place of ``replaced`` (which may be NaN), one a feature or one for all."""
    if (x.dtype.kind == "f") != (imputed.dtype.kind == "f"):
        raise InvalidInput(f"Imputer: an input of {x.dtype}, values of {imputed.dtype}")
    rows = _per_feature("Imputer", imputed, x)
    hit = xp.isnan(rows) if replaced != replaced else rows == replaced
    return xp.where(hit, xp.asarray(imputed), rows).astype(x.dtype, copy=False).reshape(x.shape)


@kernel("Binarizer", domain=_ML)
def binarizer(xp: ModuleType, x: Array, *, threshold: float = 0.0) -> Array:
    """Binarizer 1: 1 where x > threshold, else 0, in the input's type."""
    return (x > threshold).astype(x.dtype)


@kernel("FeatureVectorizer", domain=_ML)
def feature_vectorizer(xp: ModuleType, *inputs: Array, inputdimensions: Sequence[int] | None = None) -> Array:
    """FeatureVectorizer 1: rows of several inputs side by side, as float32 [N, sum of features].

    An input is cut, or filled with zeros, to its length in ``inputdimensions``.
    """
    if inputdimensions is not None and len(inputdimensions) != len(inputs):
        raise InvalidInput(f"{len(inputdimensions)} inputdimensions for {len(inputs)} inputs")
    parts = []
    for position, x in enumerate(inputs):
        rows = x.reshape(1, -1) if x.ndim <= 1 else x.reshape(len(x), -1)
        length = rows.shape[1] if inputdimensions is None else inputdimensions[position]
        if rows.shape[1] < length:
            rows = xp.concatenate([rows, xp.zeros((len(rows), length - rows.shape[1]), rows.dtype)], axis=1)
        parts.append(rows[:, :length].astype(xp.float32))
    if len({len(part) for part in parts}) > 1:
        raise InvalidInput(f"FeatureVectorizer: inputs of {sorted({len(part) for part in parts})} rows")
    return xp.concatenate(parts, axis=1)


@kernel("ArrayFeatureExtractor", domain=_ML, host=(1,))
def array_feature_extractor(xp: ModuleType, x: Array, indices: np.ndarray[Any, Any]) -> Array:
    """ArrayFeatureExtractor 1: entries of the last axis, in the order of ``indices``. [F] gives [1, indices]."""
    if not x.ndim:
        raise InvalidInput("Invalid argument: X input has empty dimensions.")
    wanted = indices.reshape(-1)
    if not wanted.size:
        raise InvalidInput("Invalid Y argument: num_indices = 0")
    # negative ones count from the end, as onnx's reference has it and skl2onnx's radius neighbours rely on
    low, high = int(wanted.min()), int(wanted.max())
    if low < -x.shape[-1] or high >= x.shape[-1]:
        bad = low if low < -x.shape[-1] else high
        raise InvalidInput(f"Invalid Y argument: index is out of range: {bad} of {x.shape[-1]} features")
    result = x[..., wanted if x.dtype == object else xp.asarray(wanted)]
    return result[None] if x.ndim == 1 else result
