"""Convolutions as operations for a GPU: cuDNN's, with bias, residual and activation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.ir import Map, Operation, Tensor, is_dense, strides_of
from distort.kernels.compiler.lower.views import strides_after
from distort.kernels.cuda.attention import GraphCall
from distort.kernels.cuda.device_libraries import Libraries, LibraryOperation, copied, is_aligned, libraries_of
from distort.kernels.cuda.dnn import Networks
from distort.kernels.cuda.dnn_graphs import ACTIVATIONS, CONVOLUTION_DTYPES, ConvProblem
from distort.kernels.cuda.epilogues import epilogue_of
from distort.kernels.cuda.library_call import LibraryCall, Withdrawn

#: element types whose convolutions tensor cores do with channels last alone: others are turned on the way
HALVES = ("float16", "bfloat16")


@dataclass(eq=False)
class CudaConv(LibraryOperation):
    """``inputs``: x [N, C, …], w, then bias [K] and z [N, K, …] where they are. The output is y [N, K, …]."""

    problem: ConvProblem
    kind: ClassVar[str] = "cuda convolution"

    def absorb(self, after: Map, position: int, target: Target) -> Operation | None:
        del position, target
        p, made = self.problem, self.outputs[0]
        if len(after.outputs) != 1 or after.outputs[0].dtype != made.dtype:
            return None
        epilogue = epilogue_of(after, made.buffer, p.activation)
        if epilogue is None or epilogue.scale != 1.0 or epilogue.activation not in ACTIVATIONS:
            return None
        y = self._viewed(after.outputs[0])
        of_y = None if y is None else strides_in(y)
        if y is None or of_y is None or not is_aligned(y):
            return None
        parameters = p.parameters if epilogue.activation == p.activation else epilogue.parameters
        problem = replace(p, y_strides=of_y, activation=epilogue.activation, parameters=parameters)
        x, w, *others = self.inputs
        bias = others.pop(0) if p.bias else None
        z = others.pop(0) if p.z_strides is not None else None
        for tensor in epilogue.added:
            view = self._viewed(tensor)
            if view is None or view.dtype != made.dtype or not is_aligned(view):
                return None
            steps = [0 if n == 1 else step for n, step in zip(view.shape, view.strides, strict=True)]
            if (
                bias is None
                and not any(steps[:1] + steps[2:])
                and steps[1] in (0, 1)
                and (steps[1] or view.shape[1] == 1)
            ):
                bias = view.view((view.shape[1],), (1,))
            elif z is None and strides_in(view) is not None:
                z = view
            else:
                return None
        problem = replace(problem, bias=bias is not None, z_strides=None if z is None else strides_in(z))
        if self.libraries.networks is None or not self.libraries.networks.supports(problem):
            return None
        return CudaConv([x, w, *(t for t in (bias, z) if t is not None)], list(after.outputs), self.libraries, problem)

    def _viewed(self, tensor: Tensor) -> Tensor | None:
        """In the shape of the result; None where no strides go that way."""
        shape = self.problem.y
        strides = None if tensor.block else strides_after(tensor, shape)
        return None if strides is None else tensor.view(shape, strides)

    def library_call(self, context: object = None) -> LibraryCall:
        del context
        p, networks = self.problem, self.libraries.networks
        plan = None if networks is None else networks.convolution(p)
        if plan is None:
            raise Withdrawn(str(p))
        names = ("x", "w", *(("bias",) if p.bias else ()), *(("z",) if p.z_strides is not None else ()), "y")
        return GraphCall(plan, names)


def strides_in(tensor: Tensor) -> tuple[int, ...] | None:
    """Its strides, if it lies as cuDNN likes it: contiguous, or so with channels as the last dimension; else None.

    Dimensions of one element have the strides that they would have with more.
    """
    if tensor.block:
        return None
    if is_dense(tensor.shape, tensor.strides):
        return strides_of(tensor.shape)
    return channels_last(tensor.shape) if is_channels_last(tensor) else None


def is_channels_last(tensor: Tensor) -> bool:
    """Whether channels [N, C, …] are the last dimension in memory, without gaps, and others would lie otherwise."""
    if tensor.block or len(tensor.shape) < 3 or is_dense(tensor.shape, tensor.strides):
        return False
    pairs = zip(tensor.shape, tensor.strides, channels_last(tensor.shape), strict=True)
    return all(step == want for n, step, want in pairs if n != 1)


def channels_last(shape: Sequence[int]) -> tuple[int, ...]:
    strides = strides_of((shape[0], *shape[2:], shape[1]))
    return (strides[0], strides[-1], *strides[1:-1])


def convolution(
    b: Builder,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    shape: Sequence[int],
    steps: Sequence[int],
    dilations: Sequence[int],
    begins: Sequence[int],
    ends: Sequence[int],
    transposed: bool = False,
) -> Tensor | None:
    """y of ``shape`` [N, K, …] from x [N, C, …] and w; see :class:`ConvProblem`. None where cuDNN has no such.

    The bias [K] is added after it, where cuDNN has no convolution with one.
    """
    libraries = libraries_of(b)
    networks = None if libraries is None else libraries.networks
    if libraries is None or networks is None or x.element not in CONVOLUTION_DTYPES or w.dtype != x.dtype:
        return None
    if bias is not None and (bias.dtype != x.dtype or bias.size != shape[1]):
        return None
    windows = (tuple(steps), tuple(dilations), tuple(begins), tuple(ends))
    if libraries.options.prefer_nhwc and x.element in HALVES and x.shape[1] > 1 and not is_channels_last(b.plain(x)):
        begin = len(b.operations)
        turned = b.new(x.dtype, x.shape).view(x.shape, channels_last(x.shape))
        b.copy(b.plain(x), turned)
        made = _convolution(b, libraries, networks, turned, w, bias, shape, windows, transposed)
        if made is not None:
            return made
        del b.operations[begin:]
    return _convolution(b, libraries, networks, x, w, bias, shape, windows, transposed)


def _convolution(
    b: Builder,
    libraries: Libraries,
    networks: Networks,
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    shape: Sequence[int],
    windows: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    transposed: bool,
) -> Tensor | None:
    """As :func:`convolution`, in the layout of x."""
    x, of_x = _laid_out(b, x)
    is_last = of_x != strides_of(x.shape)
    w, of_w = _with_channels(b, w) if is_last else _laid_out(b, w)
    of_y = channels_last(shape) if is_last else strides_of(shape)
    y = b.new(x.dtype, shape)
    y = y.view(shape, of_y)
    tf32 = libraries.options.use_tf32 and x.element == "float32"
    try:
        problem = ConvProblem(
            x.element, x.shape, w.shape, tuple(shape), of_x, of_w, of_y, *windows, transposed=transposed, tf32=tf32
        )
    except ValueError:
        return None  # what it says are no sizes of a convolution
    if bias is not None:
        with_bias = replace(problem, bias=True)
        if networks.supports(with_bias):
            column, _ = _laid_out(b, bias.view((1, bias.size, 1), (0, bias.strides[0] if bias.shape else 0, 0)))
            b.add(CudaConv([x, w, column.reshaped((bias.size,))], [y], libraries, with_bias))
            return y
    if not networks.supports(problem):
        return None
    b.add(CudaConv([x, w], [y], libraries, problem))
    if bias is None:
        return y
    column = b.contiguous(b.plain(bias)).reshaped((bias.size, *(1 for _ in shape[2:])))
    return b.map("add", [y, column])


def _laid_out(b: Builder, tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The tensor, or a copy of it, and its strides."""
    tensor = b.plain(tensor)
    strides = strides_in(tensor)
    if strides is not None and is_aligned(tensor):
        return tensor, strides
    return copied(b, tensor), strides_of(tensor.shape)


def _with_channels(b: Builder, w: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Weights with channels as the last dimension, as engines want them where the image is so, and their strides."""
    w = b.plain(w)
    last = channels_last(w.shape)
    lies = not w.block and all(n == 1 or s == t for n, s, t in zip(w.shape, w.strides, last, strict=True))
    if lies and is_aligned(w):
        return w.view(w.shape, last), last
    value = w.value
    if value is not None:
        moved = b.packed(("channels last", b.identity(value)), lambda: np.ascontiguousarray(np.moveaxis(value, 1, -1)))
        return moved.view(w.shape, last), last
    made = b.new(w.dtype, w.shape).view(w.shape, last)
    b.copy(w, made)
    return made, last


__all__ = ["CudaConv", "channels_last", "convolution", "is_channels_last", "strides_in"]
