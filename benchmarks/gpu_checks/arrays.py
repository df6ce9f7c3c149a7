"""Arrays for checks: random ones, on the GPU and back, and how far results are from what is wanted."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
#: of ‖got - want‖ / ‖want‖, by what is computed in
TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "tf32": 1e-3, "float16": 2e-3, "bfloat16": 1e-2, "int32": 0.0}


def kind(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name)) if hasattr(ml_dtypes, name) else np.dtype(name)


def random_of(shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    """Numbers of a normal distribution, or small whole ones."""
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        return rng.integers(1, 5, shape).astype(dtype)
    return rng.standard_normal(shape, np.float32).astype(dtype)


def error(got: Array, want: Array) -> float:
    """‖got - want‖ / ‖want‖; NaN where one has NaN and the other doesn't, or shapes differ."""
    if got.shape != want.shape:
        return float("nan")
    one, other = got.astype(np.float64), want.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    if same.all():
        return 0.0
    with np.errstate(all="ignore"):
        away = np.where(same, 0.0, one - other)
        size = np.linalg.norm(np.where(np.isfinite(other), other, 0.0))
    return float(np.linalg.norm(away) / max(size, 1e-30))


def to_device(array: Array) -> Any:
    from distort.kernels.cuda import copies

    return copies.to_device(array, 0)


def to_host(array: Any, dtype: np.dtype[Any]) -> Array:
    """What all streams have made of it by now."""
    import cupy

    from distort.kernels.cuda import copies

    cupy.cuda.runtime.deviceSynchronize()
    (found,) = copies.to_host([array], [dtype])
    return found


def torch_on(device: str = "cuda") -> Any:
    """torch, and where its tensors go; skipped without it. On a machine that stands in for one with GPUs: the CPU."""
    from gpu_checks.report import Skipped

    if importlib.util.find_spec("torch") is None:
        raise Skipped("torch isn't installed")
    import torch

    return torch, device if torch.cuda.is_available() else "cpu"


def median_s(run: Callable[[], object], seconds: float, *, least: int = 5, before: int = 3) -> float:
    """Of one call by the wall clock; the call waits for the GPU itself."""
    for _ in range(before):
        run()
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < least or time.perf_counter() < until:
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def events_s(enqueue: Callable[[], object], stream: Any, seconds: float, *, n: int = 5) -> float:
    """Of one call by the GPU's own clock: the median of turns of ``n`` calls on a CuPy stream."""
    import cupy

    begin, end = cupy.cuda.Event(), cupy.cuda.Event()

    def turn() -> float:
        begin.record(stream)
        for _ in range(n):
            enqueue()
        end.record(stream)
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(begin, end)) / 1e3 / n

    turn()
    taken = []
    until = time.perf_counter() + seconds
    while len(taken) < 5 or time.perf_counter() < until:
        taken.append(turn())
    return max(statistics.median(taken), 1e-9)
