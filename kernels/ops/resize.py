"""Resize and Upsample (domain ai.onnx, all versions).

Interpolation is separable: along each axis an output element is a weighted sum of a few input elements. Coordinates
are float32 as in onnxruntime, since in mode "nearest" their rounding decides which element is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.registry import kernel

Array = Any
_COORDINATES = (
    *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"),
    *("align_corners", "asymmetric", "tf_crop_and_resize"),
)
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple")
_MODES = {"nearest": "nearest", "linear": "linear", "bilinear": "linear", "cubic": "cubic"}


@dataclass(frozen=True, slots=True)
class ResizedAxis:
    """How one axis is resized; hashable, so that its positions are computed once a shape."""

    size: int
    out: int
    scale: float
    roi: tuple[float, float] | None  # of tf_crop_and_resize, else None


@dataclass(frozen=True, slots=True)
class Method:
    mode: str
    coordinates: str
    nearest: str = "floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False


@kernel("Resize", since=11, host=(1, 2, 3))
def resize(
    xp: ModuleType,
    x: Array,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Array:
    method = method_of(
        mode, coordinate_transformation_mode, nearest_mode, cubic_coeff_a, bool(exclude_outside), bool(antialias)
    )
    if coordinate_transformation_mode == "tf_crop_and_resize":
        if roi is None or not roi.size:
            raise InvalidInput("coordinate_transformation_mode tf_crop_and_resize needs roi")
    else:
        roi = None
    plans = plans_of(x, axes, roi, scales, sizes, keep_aspect_ratio_policy)
    return _resized(xp, x, plans, method, extrapolation_value)


@kernel("Resize", since=10, host=(1,))
def resize_asymmetric(xp: ModuleType, x: Array, scales: Array, *, mode: str = "nearest") -> Array:
    """Version 10; a nearest element is rounded up where an axis shrinks, as onnxruntime does."""
    plans = plans_of(x, None, None, scales, None, "stretch")
    return _resized(xp, x, plans, method_of(mode, "asymmetric", "simple"), 0.0)


@kernel("Upsample", since=7, host=(1,))
def upsample(xp: ModuleType, x: Array, scales: Array, *, mode: str = "nearest") -> Array:
    if scales.size and float(scales.min()) < 1:
        raise InvalidInput(f"Scale value should be greater than or equal to 1: {scales.tolist()}")
    return resize_asymmetric(xp, x, scales, mode=mode)


@kernel("Upsample", since=1)
def upsample_2d(xp: ModuleType, x: Array, *, height_scale: float, width_scale: float, mode: str = "nearest") -> Array:
    if x.ndim != 4:
        raise InvalidInput(f"Upsample-1 needs X of 4 axes, got {list(x.shape)}")
    return upsample(xp, x, np.array([1, 1, height_scale, width_scale], np.float32), mode=mode)


def method_of(
    mode: str,
    coordinates: str,
    nearest: str,
    cubic_a: float = -0.75,
    exclude_outside: bool = False,
    antialias: bool = False,
) -> Method:
    for value, known, name in (
        (mode, tuple(_MODES), "mode"),
        (coordinates, _COORDINATES, "coordinate_transformation_mode"),
        (nearest, _NEAREST, "nearest_mode"),
    ):
        if value not in known:
            raise InvalidInput(f"{name} '{value}' is none of {', '.join(known)}")
    return Method(_MODES[mode], coordinates, nearest, cubic_a, exclude_outside, antialias)


def plans_of(
    x: Array,
    axes: Sequence[int] | None,
    roi: Array | None,
    scales: Array | None,
    sizes: Array | None,
    policy: str,
) -> list[ResizedAxis]:
    """One entry an axis of x. Exactly one of scales and sizes must be given; an empty one counts as absent."""
    rank = x.ndim
    chosen = [axis + rank if axis < 0 else axis for axis in (range(rank) if axes is None else axes)]
    if len(set(chosen)) < len(chosen) or any(not 0 <= axis < rank for axis in chosen):
        raise InvalidInput(f"axes {list(axes or ())} must name different axes of {list(x.shape)}")
    factors = [] if scales is None else scales.astype(np.float32).tolist()
    goals = [] if sizes is None else [int(n) for n in sizes]
    if bool(factors) == bool(goals) and chosen:
        raise InvalidInput("Either `sizes` or `scales` must be provided, but not both of them")
    if len(factors or goals) != len(chosen):
        raise Failed(f"{len(factors or goals)} sizes or scales for {len(chosen)} axes of {list(x.shape)}")
    if roi is not None and roi.size != 2 * len(chosen):
        raise InvalidInput(f"roi of {roi.size} entries must have {2 * len(chosen)}, a begin and an end an axis")
    plans = [ResizedAxis(n, n, 1.0, None) for n in x.shape]
    if goals:
        if min(goals) < 0:
            raise InvalidInput(f"sizes {goals} must not be negative")
        goals, factors = _kept_aspect(policy, goals, [x.shape[axis] for axis in chosen])
    for position, axis in enumerate(chosen):
        n, factor = x.shape[axis], factors[position]
        if not goals and not factor > 0:
            raise InvalidInput(f"Scale value should be greater than 0: {factors}")
        out = goals[position] if goals else int(np.float32(n) * np.float32(factor))
        if out and not n:
            raise InvalidInput(f"axis {axis} of {list(x.shape)} has no element to make {out} of")
        region = None if roi is None else (float(roi[position]), float(roi[position + len(chosen)]))
        plans[axis] = ResizedAxis(n, out, factor, region)
    return plans


def _kept_aspect(policy: str, goals: list[int], sizes: list[int]) -> tuple[list[int], list[float]]:
    factors = [float(np.float32(g) / np.float32(n)) if n else 1.0 for g, n in zip(goals, sizes, strict=True)]
    if policy == "stretch":
        return goals, factors
    if policy not in ("not_larger", "not_smaller"):
        raise InvalidInput(f"keep_aspect_ratio_policy '{policy}' is none of stretch, not_larger, not_smaller")
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [math.floor(float(np.float32(factor) * np.float32(n)) + 0.5) for n in sizes], [factor] * len(sizes)


def _coordinates(axis: ResizedAxis, mode: str) -> Array:
    """Where each output element lies among the input's, float32 [out]."""
    one, half = np.float32(1), np.float32(0.5)
    size, out, scale = np.float32(axis.size), np.float32(axis.out), np.float32(axis.scale)
    width = size * scale  # may have a fraction that the output size lacks
    at = np.arange(axis.out, dtype=np.float32)
    if mode == "asymmetric":
        return at / scale
    if mode == "align_corners":
        return at * (size - one) / (width - one) if width != 1 else at * 0
    if mode == "tf_crop_and_resize":
        begin, end = map(np.float32, axis.roi or (0.0, 1.0))
        if axis.out == 1:
            return at * 0 + half * (begin + end) * (size - one)
        return begin * (size - one) + at * (end - begin) * (size - one) / (out - one)
    if mode == "pytorch_half_pixel" and axis.out == 1:
        return at
    if mode == "half_pixel_symmetric":
        return size / np.float32(2) * (one - out / width) + (at + half) / scale - half
    return (at + half) / scale - half


@lru_cache(maxsize=512)
def nearest_indices(axis: ResizedAxis, method: Method) -> tuple[Array, Array | None, int]:
    """(input element of each output element, outputs that lie outside, repeats), all on the host.

    ``repeats`` is how often each element follows itself where that is all that happens to this axis, else 0.
    """
    at = _coordinates(axis, method.coordinates)
    if method.nearest == "round_prefer_floor":
        index = np.ceil(at - np.float32(0.5))
    elif method.nearest == "round_prefer_ceil":
        index = np.floor(at + np.float32(0.5))
    elif method.nearest == "ceil" or (method.nearest == "simple" and axis.scale < 1):
        index = np.ceil(at)
    else:
        index = np.floor(at)
    index = np.clip(index, 0, axis.size - 1).astype(np.int64)
    repeats = axis.out // axis.size
    if axis.out % axis.size or not (index == np.arange(axis.out) // repeats).all():
        repeats = 0
    return index, _outside(axis, at), repeats


def _outside(axis: ResizedAxis, at: Array) -> Array | None:
    """Output elements that tf_crop_and_resize extrapolates; None where there are none."""
    if axis.roi is None:
        return None
    outside = (at < 0) | (at > axis.size - 1)
    return np.flatnonzero(outside) if outside.any() else None


@lru_cache(maxsize=512)
def weights_of(axis: ResizedAxis, method: Method) -> tuple[Array, Array, Array | None]:
    """(input elements [taps, out], their weights [taps, out] in float64, outputs that lie outside)"""
    at = _coordinates(axis, method.coordinates)
    base = np.ceil(at) - 1  # the last element left of the position
    shrink = min(axis.scale, 1.0) if method.antialias else 1.0
    support = 2 if method.mode == "cubic" else 1
    first = math.floor(-support / shrink) + 1
    steps = np.arange(first, 2 - first)[:, None]
    distance = np.abs((steps - (at - base).astype(np.float64)) * shrink)
    if method.mode == "cubic":
        a = method.cubic_a
        near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    else:
        weights = np.clip(1 - distance, 0, 1)
    index = base.astype(np.int64) + steps
    if method.exclude_outside:
        weights = np.where((index < 0) | (index >= axis.size), 0.0, weights)
    if method.exclude_outside or shrink < 1:
        weights /= weights.sum(axis=0)
    used = weights.any(axis=1)  # outermost taps often weigh nothing
    return np.clip(index, 0, axis.size - 1)[used], weights[used], _outside(axis, at)


def _resized(xp: ModuleType, x: Array, plans: list[ResizedAxis], method: Method, extrapolation: float) -> Array:
    shape = tuple(plan.out for plan in plans)
    active = [axis for axis, plan in enumerate(plans) if plan.scale != 1 or plan.roi not in (None, (0.0, 1.0))]
    if 0 in shape:
        return xp.empty(shape, x.dtype)
    if not active:
        return x
    outside = {}
    if method.mode == "nearest":
        found = {axis: nearest_indices(plans[axis], method) for axis in active}
        outside = {axis: where for axis, (_, where, _) in found.items() if where is not None}
        y = _gathered(xp, x, found)
    else:
        y = x if x.dtype.kind == "f" and x.dtype.itemsize >= 4 else x.astype(xp.float32)
        # axes that shrink come first: less is left for the others
        for axis in sorted(active, key=lambda axis: plans[axis].scale):
            index, weights, where = weights_of(plans[axis], method)
            if where is not None:
                outside[axis] = where
            y = _interpolated(xp, y, axis, index, weights)
        y = _as_type(xp, y, x.dtype, method)
    if outside:
        y = y.copy() if y is x else y
        for axis, where in outside.items():
            y[(*(slice(None),) * axis, xp.asarray(where))] = extrapolation
    return y


def _gathered(xp: ModuleType, x: Array, found: dict[int, tuple[Array, Array | None, int]]) -> Array:
    if all(repeats for _, _, repeats in found.values()):
        # [H, W] -> [H, 1, W, 1] -> [H, r, W, r] -> [H * r, W * r]
        apart: list[int] = []
        repeated: list[int] = []
        for axis, n in enumerate(x.shape):
            apart += (n, 1)
            repeated += (n, found[axis][2] if axis in found else 1)
        out = [n * r for n, r in zip(repeated[::2], repeated[1::2], strict=True)]
        return xp.ascontiguousarray(xp.broadcast_to(x.reshape(apart), repeated)).reshape(out)
    for axis in sorted(found, key=lambda axis: found[axis][0].size / x.shape[axis]):
        x = xp.take(x, xp.asarray(found[axis][0]), axis=axis)
    return x


def _interpolated(xp: ModuleType, x: Array, axis: int, index: Array, weights: Array) -> Array:
    """index, weights: [taps, out]"""
    trailing = (-1, *(1,) * (x.ndim - 1 - axis))
    total = None
    for where, weight in zip(index, xp.asarray(weights, dtype=x.dtype), strict=True):
        part = xp.take(x, xp.asarray(where), axis=axis)
        part *= weight.reshape(trailing)
        if total is None:
            total = part
        else:
            total += part
    return total


def _as_type(xp: ModuleType, y: Array, dtype: Any, method: Method) -> Array:
    """Integers: rounded when antialiased, else cut, as in onnxruntime; cubic overshoot saturates."""
    if dtype.kind in "iu":
        limits = xp.iinfo(dtype)
        y = xp.clip(xp.rint(y) if method.antialias else xp.trunc(y), limits.min, limits.max)
    elif dtype.kind == "b":
        y = y != 0
    return y.astype(dtype, copy=False)
