"""ONNX's operators as torch functions: a maker each, of (attributes, what is known of its inputs) -> a function.

Sizes, axes and bounds are known when a function is made, and are numbers in it; inputs that say these are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from onnx import TensorProto
from torch.nn import functional

Function = Callable[..., Any]
Maker = Callable[[Mapping[str, Any], list[Any]], Function]
OPERATORS: dict[str, Maker] = {}

DTYPES = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.INT64: torch.int64,
    TensorProto.INT32: torch.int32,
    TensorProto.INT8: torch.int8,
    TensorProto.UINT8: torch.uint8,
    TensorProto.BOOL: torch.bool,
}


def _simple(**functions: Function) -> None:
    for name, function in functions.items():
        OPERATORS[name] = lambda attributes, known, function=function: function


_simple(
    Add=lambda a, b: a + b,
    Sub=lambda a, b: a - b,
    Mul=lambda a, b: a * b,
    Div=lambda a, b: a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc"),
    MatMul=torch.matmul,
    Pow=lambda a, b: torch.pow(a, b.to(a.dtype)),
    Sqrt=torch.sqrt,
    Reciprocal=torch.reciprocal,
    Neg=torch.neg,
    Abs=torch.abs,
    Exp=torch.exp,
    Erf=torch.erf,
    Tanh=torch.tanh,
    Sigmoid=torch.sigmoid,
    Relu=torch.relu,
    Cos=torch.cos,
    Sin=torch.sin,
    Identity=lambda a: a,
    Where=torch.where,
    And=torch.logical_and,
    Or=torch.logical_or,
    Not=torch.logical_not,
    Equal=torch.eq,
    Greater=torch.gt,
    Less=torch.lt,
    GreaterOrEqual=torch.ge,
    LessOrEqual=torch.le,
    Max=lambda *values: _all(torch.maximum, values),
    Min=lambda *values: _all(torch.minimum, values),
)


def _all(function: Function, values: tuple[Any, ...]) -> Any:
    found = values[0]
    for value in values[1:]:
        found = function(found, value)
    return found


def _operator(name: str) -> Callable[[Maker], Maker]:
    def register(maker: Maker) -> Maker:
        OPERATORS[name] = maker
        return maker

    return register


def _numbers(known: list[Any], position: int, default: Any = None) -> Any:
    """An input that the host reads. Raises ValueError where it follows from data."""
    if position >= len(known):
        return default
    value = known[position]
    if value is None:
        return default
    return value.tolist()


@_operator("Shape")
def _shape(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    begin, end = attributes.get("start", 0), attributes.get("end")
    return lambda x: torch.tensor(list(x.shape)[begin:end], dtype=torch.int64)


@_operator("Reshape")
def _reshape(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    sizes, zeros = _numbers(known, 1), attributes.get("allowzero", 0)

    def run(x: Any, _: Any) -> Any:
        return x.reshape([x.shape[i] if size == 0 and not zeros else size for i, size in enumerate(sizes)])

    return run


@_operator("Transpose")
def _transpose(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    perm = attributes.get("perm")
    return lambda x: x.permute(perm if perm is not None else tuple(range(x.dim()))[::-1])


@_operator("Unsqueeze")
def _unsqueeze(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    axes = _numbers(known, 1, attributes.get("axes"))

    def run(x: Any, *_: Any) -> Any:
        rank = x.dim() + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return run


@_operator("Squeeze")
def _squeeze(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    axes = _numbers(known, 1, attributes.get("axes"))
    return lambda x, *_: x.squeeze() if axes is None else x.squeeze(tuple(axes))


@_operator("Concat")
def _concat(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    axis = attributes["axis"]
    return lambda *values: torch.cat(values, axis)


@_operator("Expand")
def _expand(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    sizes = _numbers(known, 1)
    return lambda x, _: x.expand(torch.broadcast_shapes(x.shape, sizes))


@_operator("Slice")
def _slice(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    begins, ends, axes, steps = (_numbers(known, i) for i in range(1, 5))
    axes, steps = axes or list(range(len(begins))), steps or [1] * len(begins)
    if any(step < 1 for step in steps):
        raise KeyError("Slice with negative steps")

    def run(x: Any, *_: Any) -> Any:
        parts = [slice(None)] * x.dim()
        for begin, end, axis, step in zip(begins, ends, axes, steps, strict=True):
            size = x.shape[axis]
            parts[axis] = slice(*slice(begin, max(min(end, size), -size - 1), step).indices(size))
        return x[tuple(parts)]

    return run


@_operator("Gather")
def _gather(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    axis = attributes.get("axis", 0)

    def run(x: Any, indices: Any) -> Any:
        at = axis % x.dim()
        indices = torch.where(indices < 0, indices + x.shape[at], indices)
        if at == 0 and x.dim() == 2 and x.is_floating_point():
            return functional.embedding(indices, x)
        picked = x.index_select(at, indices.reshape(-1))
        return picked.reshape([*x.shape[:at], *indices.shape, *x.shape[at + 1 :]])

    return run


@_operator("GatherND")
def _gather_nd(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    if attributes.get("batch_dims", 0):
        raise KeyError("GatherND with batch_dims")
    return lambda x, indices: x[tuple(indices.unbind(-1))]


@_operator("Range")
def _range(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    begin, end, step = (_numbers(known, i) for i in range(3))
    dtype = known[0].dtype
    return lambda *_: torch.arange(begin, end, step, dtype=dtype)


@_operator("Cast")
def _cast(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    dtype = DTYPES[attributes["to"]]
    return lambda x: x.to(dtype)


@_operator("ConstantOfShape")
def _constant_of_shape(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    sizes, value = _numbers(known, 0), attributes.get("value")
    filled = torch.zeros(1) if value is None else torch.from_numpy(value.copy())
    return lambda _: filled.expand(sizes).clone()


@_operator("Softmax")
def _softmax(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    axis = attributes.get("axis", -1)
    return lambda x: torch.softmax(x, axis)


@_operator("Gelu")
def _gelu(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    approximate = attributes.get("approximate", "none")
    return lambda x: functional.gelu(x, approximate=approximate)


@_operator("LayerNormalization")
def _layer_norm(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    axis, epsilon = attributes.get("axis", -1), attributes.get("epsilon", 1e-5)
    return lambda x, w, b=None: functional.layer_norm(x, x.shape[axis % x.dim() :], w, b, epsilon)


@_operator("ReduceMean")
def _reduce_mean(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    axes, keep = _numbers(known, 1, attributes.get("axes")), bool(attributes.get("keepdims", 1))
    if axes is None and attributes.get("noop_with_empty_axes", 0):
        return lambda x, *_: x
    return lambda x, *_: x.mean(tuple(axes) if axes is not None else tuple(range(x.dim())), keepdim=keep)


@_operator("Clip")
def _clip(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    low, high = _numbers(known, 1, attributes.get("min")), _numbers(known, 2, attributes.get("max"))
    return lambda x, *_: torch.clamp(x, low, high)


@_operator("Gemm")
def _gemm(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    first, second = attributes.get("transA", 0), attributes.get("transB", 0)

    def run(a: Any, b: Any, c: Any = None) -> Any:
        a, b = (a.t() if first else a), (b.t() if second else b)
        return a @ b * alpha if c is None else torch.addmm(c, a, b, beta=beta, alpha=alpha)

    return run


def _windows(attributes: Mapping[str, Any], axes: int) -> tuple[list[int], list[int], list[int]]:
    """Strides, dilations, and pads that are alike on both sides."""
    if attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise KeyError(f"auto_pad {attributes['auto_pad']}")
    pads = list(attributes.get("pads", [0] * 2 * axes))
    if pads[:axes] != pads[axes:]:
        raise KeyError("uneven pads")
    return list(attributes.get("strides", [1] * axes)), list(attributes.get("dilations", [1] * axes)), pads[:axes]


@_operator("Conv")
def _conv(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    axes = known[1].dim() - 2
    strides, dilations, pads = _windows(attributes, axes)
    groups, run = attributes.get("group", 1), getattr(functional, f"conv{axes}d")
    return lambda x, w, b=None: run(x, w, b, strides, pads, dilations, groups)


@_operator("MaxPool")
def _max_pool(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    kernel = list(attributes["kernel_shape"])
    strides, dilations, pads = _windows(attributes, len(kernel))
    run, ceil = getattr(functional, f"max_pool{len(kernel)}d"), bool(attributes.get("ceil_mode", 0))
    return lambda x: run(x, kernel, strides, pads, dilations, ceil)


@_operator("AveragePool")
def _average_pool(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    kernel = list(attributes["kernel_shape"])
    strides, _, pads = _windows(attributes, len(kernel))
    run, ceil = getattr(functional, f"avg_pool{len(kernel)}d"), bool(attributes.get("ceil_mode", 0))
    count = bool(attributes.get("count_include_pad", 0))
    return lambda x: run(x, kernel, strides, pads, ceil, count)


@_operator("GlobalAveragePool")
def _global_average_pool(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    return lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True)


@_operator("Flatten")
def _flatten(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    axis = attributes.get("axis", 1)
    return lambda x: x.reshape(x.shape[:axis].numel(), -1)


@_operator("BatchNormalization")
def _batch_norm(attributes: Mapping[str, Any], known: list[Any]) -> Function:
    epsilon = attributes.get("epsilon", 1e-5)
    return lambda x, w, b, mean, var: functional.batch_norm(x, mean, var, w, b, eps=epsilon)


__all__ = ["OPERATORS"]
