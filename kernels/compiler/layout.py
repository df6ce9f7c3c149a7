"""Layouts: where values have their channels in blocks, what brings them there and back.

A tensor in blocks has shape [N, C, …] and memory [N, C/block, …, block], with ``strides`` of the latter; a volume lies
as its images do, see ``depths``. Work on it is done on :func:`memory`, all lanes alike. Lanes beyond C hold numbers
that nobody looks at, but finite ones, since convolutions multiply them by zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from distort.kernels.compiler import blocked as packing
from distort.kernels.compiler import half
from distort.kernels.compiler.depths import RANK, flat, flat_operand, volume
from distort.kernels.compiler.ir import Buffer, Call, Native, Tensor, Word, broadcast_shape, is_dense, strides_of
from distort.kernels.compiler.keys import Key

if TYPE_CHECKING:
    from distort.kernels.compiler.builder import Builder
    from distort.kernels.compiler.expression import Instruction

FLOAT32 = np.dtype(np.float32)
#: pixels that a thread reorders at once
_CHUNK = 512
#: operators that make finite numbers of finite ones (but for overflow)
_FINITE = frozenset(
    [
        "add",
        "sub",
        "mul",
        "neg",
        "abs",
        "sign",
        "relu",
        "leaky_relu",
        "prelu",
        "elu",
        "selu",
        "celu",
        "hard_sigmoid",
        "hard_swish",
        "swish",
        "mish",
        "gelu",
        "sigmoid",
        "tanh",
        "softplus",
        "softsign",
        "erf",
        "exp",
        "atan",
        "maximum",
        "minimum",
        "max",
        "min",
        "clip",
        "constant",
        "where",
        "floor",
        "ceil",
        "round",
        "cast",
        "equal",
        "not_equal",
        "less",
        "greater",
        "less_or_equal",
        "greater_or_equal",
        "and",
        "or",
        "not",
    ]
)


def in_blocks(builder: Builder, shape: Sequence[int]) -> Tensor:
    """Room for a float32 value [N, C, …] in blocks."""
    lanes = builder.target.lanes("float")
    if len(shape) == RANK:
        n, c, d, *size = shape
        return volume(in_blocks(builder, (n * d, c, *size)), shape)
    inner = (shape[0], -(-shape[1] // lanes), *shape[2:], lanes)
    return Tensor(FLOAT32, tuple(shape), strides_of(inner), Buffer(math.prod(inner) * 4), block=lanes)


def of_work(inner: Tensor, shape: Sequence[int]) -> Tensor:
    """What element-wise work in blocks has made, of this shape."""
    return volume(of_memory(inner, shape[1]), shape)


def memory(tensor: Tensor) -> Tensor:
    """A tensor in blocks as it lies: [N, C/block, …, block]."""
    if tensor.inner is None:
        n, c, *size = tensor.shape
        inner = (n, -(-c // tensor.block), *size, tensor.block)
        tensor.inner = Tensor(tensor.dtype, inner, tensor.strides, tensor.buffer, tensor.offset)
    return tensor.inner


def of_memory(inner: Tensor, channels: int) -> Tensor:
    """The other way round."""
    n, _, *size, lanes = inner.shape
    shape = (n, channels, *size)
    as_it_lies = inner if inner.value is None and inner.shape[1] == -(-channels // lanes) else None
    return Tensor(inner.dtype, shape, inner.strides, inner.buffer, inner.offset, block=lanes, inner=as_it_lies)


def is_dense_inside(tensor: Tensor) -> bool:
    """Whether pixels of a channel block lie next to each other, as kernels expect. All but slices of pixels do."""
    inner = memory(tensor)
    expected = strides_of(inner.shape)
    return all(
        have == want or size == 1
        for size, have, want in zip(inner.shape[1:], inner.strides[1:], expected[1:], strict=True)
    )


def unblocked(builder: Builder, tensor: Tensor) -> Tensor:
    """The tensor with its channels not in blocks: another view where it has one pixel, else a copy."""
    known = builder.layouts.get(id(tensor))
    if known is not None:
        return known[1]
    if math.prod(tensor.shape[2:]) == 1 and tensor.strides[1] == tensor.block:
        made = tensor.view(tensor.shape, (tensor.strides[0], 1, *([1] * len(tensor.shape[2:]))))
    elif half.is_narrow(tensor):
        made = half.narrowed(builder, unblocked(builder, half.widened(builder, tensor)), tensor.dtype)
    else:
        made = builder.new(tensor.dtype, tensor.shape)
        builder.add(Native([memory(tensor)], [made], _reorders(made, tensor, to_blocks=False)))
    builder.layouts[id(tensor)] = (tensor, made)
    return made


def blocked(builder: Builder, tensor: Tensor) -> Tensor:
    """The tensor [N, C, …] with its channels in blocks: another view where it has one pixel, else a copy."""
    if tensor.block:
        return tensor
    known = builder.layouts.get(id(tensor))
    if known is not None:
        return known[1]
    lanes = builder.target.lanes("float")
    c, size = tensor.shape[1], tensor.shape[2:]
    value = tensor.value
    if value is not None:
        inner = builder.packed(("blocks", builder.identity(value), lanes), lambda: packing.block(value, lanes))
        made = of_memory(inner, c)
    elif math.prod(size) == 1 and c % lanes == 0 and (tensor.strides[1] == 1 or c == 1):
        strides = (tensor.strides[0], lanes, *([lanes] * len(size)), 1)
        made = Tensor(tensor.dtype, tensor.shape, strides, tensor.buffer, tensor.offset, block=lanes)
    else:
        made = in_blocks(builder, tensor.shape)
        dense = channels_dense(builder, tensor)
        builder.add(Native([dense], [memory(made)], _reorders(dense, made, to_blocks=True)))
    builder.layouts[id(tensor)] = (tensor, made)
    return made


def channels_dense(builder: Builder, tensor: Tensor) -> Tensor:
    """A plain tensor whose channels have contiguous pixels."""
    return tensor if is_dense(tensor.shape[2:], tensor.strides[2:]) else builder.contiguous(tensor)


def pixels_dense(builder: Builder, tensor: Tensor) -> Tensor:
    """A plain tensor whose images are contiguous."""
    expected = strides_of(tensor.shape)
    if all(
        have == want or size == 1
        for size, have, want in zip(tensor.shape[1:], tensor.strides[1:], expected[1:], strict=True)
    ):
        return tensor
    return builder.contiguous(tensor)


def _reorders(plain: Tensor, tensor: Tensor, *, to_blocks: bool) -> list[Call]:
    lanes = tensor.block
    n, c, *size = tensor.shape
    if len(size) == 3 and n > 1:
        made: list[Call] = []
        for image in range(n):
            one, other = (
                Tensor(t.dtype, (1, *t.shape[1:]), t.strides, t.buffer, t.offset + image * t.strides[0], block=t.block)
                for t in (plain, tensor)
            )
            made += _reorders(one, other, to_blocks=to_blocks)
        return made
    if len(size) == 3:
        images, of_blocks = flat(plain), flat(tensor)
        assert images is not None and of_blocks is not None
        return _reorders(images, of_blocks, to_blocks=to_blocks)
    pixels, blocks = math.prod(size), -(-c // lanes)
    if not n * c * pixels:
        return []
    words: list[Word] = [
        plain.address(),
        tensor.address(),
        n,
        blocks,
        c,
        pixels,
        _CHUNK,
        plain.strides[0],
        plain.strides[1],
        tensor.strides[0],
        tensor.strides[1],
    ]
    key = Key("reorder", (to_blocks, pixels < lanes))
    work = n * blocks * lanes * pixels * 0.25
    return [Call(key, words, work, most_threads=n * blocks * -(-pixels // _CHUNK))]


def arranged(
    builder: Builder, inputs: Sequence[Tensor], body: Sequence[Instruction], numbers: Sequence[int]
) -> tuple[list[Tensor], tuple[int, ...] | None]:
    """Operands of element-wise work as it is done: in blocks, as they lie, with the result's shape, or plain.

    ``numbers``: which operands stand in the code instead, so that nobody looks at how they lie.

    It is done in blocks where an operand of the result's shape is in blocks and the others are that too, or one
    number, or numbers by channel.
    """
    shape = broadcast_shape(*[t.shape for t in inputs])
    main = next(iter([t for t in inputs if t.block and t.shape == shape]), None)
    takes = main is not None and body[-1].dtype in ("float32", *half.NARROW)
    if main is not None and takes and (shape[1] % main.block == 0 or _stays_finite(inputs, body)):
        found: list[Tensor] = []
        for place, tensor in enumerate(inputs):
            if place in numbers:
                found.append(tensor)
                continue
            inner: Tensor | None = None
            if tensor.block and tensor.shape == shape:
                images = flat(tensor)
                inner = memory(images) if images is not None else None
            elif tensor.size == 1 and tensor.contiguous:
                found.append(tensor.reshaped((1,) * (min(len(shape), RANK - 1) + 1)))
                continue
            inner = inner or by_channel(builder, tensor, shape, main.block)
            if inner is None:
                break
            found.append(inner)
        else:
            return found, tuple(shape)
    return [builder.plain(t) for t in inputs], None


def _stays_finite(inputs: Sequence[Tensor], body: Sequence[Instruction]) -> bool:
    for instruction in body:
        if instruction.op in ("div", "pow") and instruction.operands[1] < len(inputs):
            value = inputs[instruction.operands[1]].value
            number = 0.0 if value is None or value.size != 1 else float(value.reshape(())[()])
            if number > 0 and (instruction.op == "div" or number.is_integer()):
                continue
        if instruction.op not in _FINITE:
            return False
    return True


def by_channel(builder: Builder, tensor: Tensor, shape: Sequence[int], lanes: int) -> Tensor | None:
    """Numbers by channel, and by image, as [N or 1, C/lanes, 1, …, lanes]; or a plain tensor put in blocks."""
    if tensor.block:
        small = tensor
    elif len(tensor.shape) <= len(shape) and (tensor.dtype == FLOAT32 or half.is_narrow(tensor)):
        tensor = half.widened(builder, tensor)
        full = [1] * (len(shape) - len(tensor.shape)) + list(tensor.shape)
        if full[1] != shape[1]:
            return None
        if tensor.shape == tuple(full):
            small = blocked(builder, tensor)
        elif tensor.value is not None:
            value = tensor.value
            key = ("blocks", builder.identity(value), tuple(full), lanes)
            inner = builder.packed(key, lambda: packing.block(value.reshape(full), lanes))
            small = of_memory(inner, shape[1])
        elif tensor.contiguous:
            small = blocked(builder, tensor.reshaped(full))
        else:
            return None
    else:
        return None
    if small.shape[1] != shape[1] or any([a not in (1, b) for a, b in zip(small.shape, shape, strict=True)]):
        return None
    operand = flat_operand(small, shape)
    return None if operand is None else memory(operand)


def joined(builder: Builder, parts: Sequence[Tensor]) -> Tensor | None:
    """Tensors [N, C, …] joined along their channels, in blocks; None where plain ones are better joined."""
    lanes = builder.target.lanes("float")
    first = parts[0]
    for part in parts:
        if part.dtype != np.float32 or len(part.shape) != len(first.shape) or len(part.shape) < 3:
            return None
        if part.shape[0] != first.shape[0] or part.shape[2:] != first.shape[2:]:
            return None
    apart = any(part.shape[1] % lanes for part in parts[:-1])
    if apart and (not all(part.block for part in parts) or not all(part.size for part in parts)):
        return None
    shape = (first.shape[0], sum(p.shape[1] for p in parts), *first.shape[2:])
    images = [flat(blocked(builder, part)) for part in parts]
    parts = [t for t in images if t is not None]
    if len(parts) < len(images):
        return None
    result = in_blocks(builder, shape)
    flattened = flat(result)
    assert flattened is not None
    whole = memory(flattened)
    begin = 0
    for part in parts:
        end = begin + part.shape[1]
        inner = memory(part)
        if begin % lanes == 0 and (end % lanes == 0 or part is parts[-1]):
            builder.copy(inner, whole.view(inner.shape, whole.strides, begin // lanes * whole.strides[1]))
        else:
            dense = inner if is_dense_inside(part) else builder.contiguous(inner)
            _join(builder, dense, whole, begin, end, is_last=part is parts[-1])
        begin = end
    return result


def _join(builder: Builder, inner: Tensor, whole: Tensor, begin: int, end: int, *, is_last: bool) -> None:
    """Channels from ``begin`` to before ``end`` of a tensor in blocks, where one of both is within a block.

    The last part writes the lanes beyond all channels too.
    """
    images, blocks, *size, lanes = inner.shape
    pixels, first = math.prod(size), begin // lanes
    touched = -(-end // lanes) - first
    words: list[Word] = [images, touched, pixels, _CHUNK, inner.address(), inner.strides[0], inner.strides[1], blocks]
    words += [whole.address(first * whole.strides[1]), whole.strides[0], whole.strides[1], begin - first * lanes]
    words.append(lanes if is_last else end - (first + touched - 1) * lanes)
    call = Call(
        Key("join", (begin % lanes,)),
        words,
        images * touched * pixels * lanes * 0.1,
        most_threads=images * touched * -(-pixels // _CHUNK),
    )
    target = whole.view((images, touched, *whole.shape[2:]), whole.strides, first * whole.strides[1])
    builder.add(Native([inner], [target], [call]))
