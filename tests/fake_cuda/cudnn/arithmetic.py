"""Tensors of a graph, what follows for their dimensions, and its operations by NumPy at addresses of host memory."""

from __future__ import annotations

import ctypes
import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
DTYPES = {
    "FLOAT": np.dtype(np.float32),
    "DOUBLE": np.dtype(np.float64),
    "HALF": np.dtype(np.float16),
    "BFLOAT16": np.dtype(ml_dtypes.bfloat16),
    "INT32": np.dtype(np.int32),
}


@dataclass(eq=False)
class Tensor:
    name: str
    dim: list[int]
    stride: list[int]
    data_type: Any
    virtual: bool
    is_output: bool = False
    uid: int = 0

    def set_output(self, value: bool) -> Tensor:
        self.is_output, self.virtual = value, not value
        return self

    def set_data_type(self, data_type: Any) -> Tensor:
        self.data_type = data_type
        return self

    def set_dim(self, dim: list[int]) -> Tensor:
        self.dim = list(dim)
        return self

    def set_stride(self, stride: list[int]) -> Tensor:
        self.stride = list(stride)
        return self

    def set_uid(self, uid: int) -> Tensor:
        self.uid = uid
        return self


@dataclass(eq=False)
class Step:
    op: str
    inputs: dict[str, Tensor]
    out: Tensor
    attributes: dict[str, Any] = field(default_factory=dict)


def row_major(dim: list[int]) -> list[int]:
    return [math.prod(dim[i + 1 :]) for i in range(len(dim))]


def check(tensor: Tensor) -> None:
    """As cuDNN finalizes a tensor: it has a type, as many strides as dimensions, and elements don't share memory."""
    if tensor.data_type is None or tensor.data_type.name not in DTYPES:
        raise RuntimeError(f"CUDNN_STATUS_BAD_PARAM: {tensor.name} has no type")
    if not tensor.dim or len(tensor.dim) != len(tensor.stride) or min(tensor.dim) < 1:
        raise RuntimeError(f"CUDNN_STATUS_BAD_PARAM: {tensor.name} has {tensor.dim} and {tensor.stride}")
    reach = 1
    for stride, n in sorted((stride, n) for n, stride in zip(tensor.dim, tensor.stride, strict=True) if n > 1):
        if stride < reach:
            raise RuntimeError(f"CUDNN_STATUS_BAD_PARAM: {tensor.name} overlaps itself: {tensor.dim}, {tensor.stride}")
        reach = (n - 1) * stride + reach
    if not tensor.virtual and not tensor.uid:
        raise RuntimeError(f"{tensor.name} has no number")


def dimensions(step: Step) -> list[int]:
    """Of what an operation makes."""
    inputs, how = step.inputs, step.attributes
    if step.op == "sdpa":
        q, k, v = inputs["q"].dim, inputs["k"].dim, inputs["v"].dim
        if q[0] != k[0] or k[:3] != v[:3] or q[3] != k[3] or q[1] % k[1]:
            raise RuntimeError(f"CUDNN_STATUS_BAD_PARAM: queries {q}, keys {k}, values {v}")
        if {t.data_type.name for t in (inputs["q"], inputs["k"], inputs["v"])} - {"HALF", "BFLOAT16"}:
            raise RuntimeError("CUDNN_STATUS_NOT_SUPPORTED: attention in half precision alone")
        if q[3] % 8 or v[3] % 8:
            raise RuntimeError("CUDNN_STATUS_NOT_SUPPORTED: sizes of heads are no multiples of 8")
        return [*q[:3], v[3]]
    if step.op == "conv_fprop":
        return _convolved(inputs["x"].dim, inputs["w"].dim, how)
    if step.op == "conv_dgrad":
        # several images become x
        made, w = step.out.dim, inputs["w"].dim
        if not made or inputs["x"].dim != _convolved(made, w, how):
            raise RuntimeError(f"CUDNN_STATUS_BAD_PARAM: {made} doesn't become {inputs['x'].dim}")
        return made
    return list(np.broadcast_shapes(*(t.dim for t in inputs.values())))


def _convolved(x: list[int], w: list[int], how: dict[str, Any]) -> list[int]:
    n = len(x) - 2
    if len(w) != len(x) or any(len(one) != n for one in how.values()) or n < 2:
        raise RuntimeError(f"CUDNN_STATUS_BAD_PARAM: ranks of {x}, {w}, {how}")
    if x[1] % w[1] or w[0] % (x[1] // w[1]) or min(*how["begins"], *how["ends"]) < 0:
        raise RuntimeError(f"CUDNN_STATUS_BAD_PARAM: channels of {x} and {w}")
    out = []
    for i in range(n):
        reach = (w[2 + i] - 1) * how["dilations"][i] + 1
        out.append((x[2 + i] + how["begins"][i] + how["ends"][i] - reach) // how["steps"][i] + 1)
    return [x[0], w[0], *out]


def at(address: int, tensor: Tensor) -> Array:
    """A tensor's memory as an array."""
    dtype = DTYPES[tensor.data_type.name]
    n = sum((n - 1) * step for n, step in zip(tensor.dim, tensor.stride, strict=True)) + 1
    raw = (ctypes.c_uint8 * (n * dtype.itemsize)).from_address(address)
    flat = np.frombuffer(raw, dtype)
    return np.lib.stride_tricks.as_strided(flat, tensor.dim, [s * dtype.itemsize for s in tensor.stride])


def scribble(address: int, nbytes: int) -> None:
    """Over a workspace."""
    if nbytes:
        ctypes.memset(address, 0xA5, nbytes)


def compute(steps: list[Step], addresses: dict[int, int]) -> None:
    values: dict[Tensor, Array] = {}

    def read(tensor: Tensor) -> Array:
        if tensor not in values:
            wide = np.float64 if tensor.data_type.name == "DOUBLE" else np.float32
            array = at(addresses[tensor.uid], tensor)
            values[tensor] = array if array.dtype.kind == "i" else array.astype(wide)
        return values[tensor]

    for step in steps:
        given = {name: read(tensor) for name, tensor in step.inputs.items()}
        values[step.out] = _computed(step, given)
        if not step.out.virtual:
            at(addresses[step.out.uid], step.out)[...] = values[step.out]


def _computed(step: Step, given: dict[str, Array]) -> Array:
    how = step.attributes
    if step.op == "conv_fprop":
        return _forward(given["x"], given["w"], step.out.dim, how)
    if step.op == "conv_dgrad":
        return _backward(given["x"], given["w"], step.out.dim, how)
    if step.op == "sdpa":
        return _attended(given, how)
    a = given["a"]
    if step.op == "add":
        return a + given["b"]
    if step.op == "relu":
        return np.clip(a, how["low"], how["high"])
    if step.op == "leaky_relu":
        return np.where(a < 0, a * np.float32(how["slope"]), a)
    if step.op == "swish":
        return a / (1 + np.exp(-a * np.float32(how["beta"])))
    if step.op == "sigmoid":
        return 1 / (1 + np.exp(-a))
    assert step.op == "tanh"
    return np.tanh(a)


def _taps(w: Array, out: list[int], how: dict[str, Any]) -> Any:
    """Each element of a kernel, and the pixels of the padded image that it meets."""
    for tap in itertools.product(*map(range, w.shape[2:])):
        begins = [t * d for t, d in zip(tap, how["dilations"], strict=True)]
        yield (
            (slice(None), slice(None), *tap),
            (
                slice(None),
                *(slice(b, b + (n - 1) * s + 1, s) for b, n, s in zip(begins, out, how["steps"], strict=True)),
            ),
        )


def _forward(x: Array, w: Array, dim: list[int], how: dict[str, Any]) -> Array:
    groups, each = x.shape[1] // w.shape[1], w.shape[0] // (x.shape[1] // w.shape[1])
    padded = np.pad(x, [(0, 0), (0, 0), *zip(how["begins"], how["ends"], strict=True)])
    made = np.zeros(dim, x.dtype)
    for group in range(groups):
        part = padded[:, group * w.shape[1] : (group + 1) * w.shape[1]]
        channels = slice(group * each, (group + 1) * each)
        for tap, pixels in _taps(w, dim[2:], how):
            seen = part[(slice(None), *pixels)]
            made[:, channels] += np.einsum("kc,nc...->nk...", w[tap][channels], seen)
    return made


def _backward(x: Array, w: Array, dim: list[int], how: dict[str, Any]) -> Array:
    """x [N, C, …], w [C, K / groups, …] -> [N, K, …]"""
    groups = dim[1] // w.shape[1]
    each = x.shape[1] // groups
    size = [n + b + e for n, b, e in zip(dim[2:], how["begins"], how["ends"], strict=True)]
    whole = np.zeros((*dim[:2], *size), x.dtype)
    for group in range(groups):
        channels = slice(group * each, (group + 1) * each)
        part = whole[:, group * w.shape[1] : (group + 1) * w.shape[1]]
        for tap, pixels in _taps(w, list(x.shape[2:]), how):
            part[(slice(None), *pixels)] += np.einsum("ck,nc...->nk...", w[tap][channels], x[:, channels])
    inner = [slice(b, b + n) for b, n in zip(how["begins"], dim[2:], strict=True)]
    return whole[(slice(None), slice(None), *inner)]


def _attended(given: dict[str, Array], how: dict[str, Any]) -> Array:
    q, k, v = given["q"], given["k"], given["v"]
    repeats = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, repeats, 1), np.repeat(v, repeats, 1)
    scores = q @ np.swapaxes(k, 2, 3) * (1.0 if how["scale"] is None else np.float32(how["scale"]))
    if "bias" in given:
        scores = scores + given["bias"]
    queries, keys = scores.shape[2:]
    if how["right"] is not None:
        ahead = np.arange(keys) - (np.arange(queries)[:, None] + (keys - queries if how["last"] else 0))
        scores = np.where(ahead <= how["right"], scores, -np.inf)
    if "n_keys" in given:
        scores = np.where(np.arange(keys) < given["n_keys"], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    made = weights / weights.sum(-1, keepdims=True) @ v
    if "n_queries" in given:
        made = np.where(np.arange(queries)[:, None] < given["n_queries"], made, 0)
    return made
