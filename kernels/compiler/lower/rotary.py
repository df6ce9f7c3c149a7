"""Rotary position embeddings: pairs of a head's elements are turned by angles that depend on the position.

B: batch, H: heads, S: positions, D: size of a head. See ``kernels/ops/attention.py`` and ``contrib_rotary.py``.
"""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler import half
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen.rotary import WORDS
from distort.kernels.compiler.expression import Expression, Instruction
from distort.kernels.compiler.ir import Call, Map, Native, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.scores import split_heads

Result = list[Tensor | None] | None
_MS = "com.microsoft"
_ELEMENT_NS = 0.1


def rotated(b: Builder, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, to: Tensor) -> None:
    """x [B, H, S, D] turned by cos and sin [B or 1, S, turned / 2], in a view of its shape; the rest is copied."""
    if b.takes_native and all(t.element == "float32" and 1 in (t.shape[-1], t.strides[-1]) for t in (x, cos, sin, to)):
        _turn(b, x, cos, sin, interleaved, to)
        return
    turned = 2 * cos.shape[2]
    places = (0, 1, 2) if interleaved else (0, turned // 2, 1)

    def part(tensor: Tensor, begin: int, step: int, count: int) -> Tensor:
        strides = (*tensor.strides[:3], tensor.strides[3] * step)
        return tensor.view((*tensor.shape[:3], count), strides, begin * tensor.strides[3])

    first, second, step = places
    real, imaginary = (part(x, begin, step, turned // 2) for begin in (first, second))
    angles = []
    for angle in (cos, sin):
        b_stride = angle.strides[0] if angle.shape[0] == x.shape[0] else 0
        angles.append(angle.view(real.shape, (b_stride, 0, *angle.strides[1:])))
    body = (
        Instruction("mul", (0, 2), "float32"),
        Instruction("mul", (1, 3), "float32"),
        Instruction("sub", (4, 5), x.element),
        Instruction("mul", (0, 3), "float32"),
        Instruction("mul", (1, 2), "float32"),
        Instruction("add", (7, 8), x.element),
    )
    inputs = [real, imaginary, *angles]
    outputs = [part(to, begin, step, turned // 2) for begin in (first, second)]
    b.add(Map(inputs, outputs, Expression(tuple(t.element for t in inputs), body, (6, 9))))
    if turned < x.shape[3]:
        b.copy(part(x, turned, 1, x.shape[3] - turned), part(to, turned, 1, x.shape[3] - turned))


def _turn(b: Builder, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, to: Tensor) -> None:
    """As :func:`rotated`, in one pass: elements of a head, and of its angles, lie next to each other."""
    pairs = cos.shape[2]
    words: list[Word] = [x.address(), to.address(), cos.address(), sin.address()]
    words += [*x.shape[:3], pairs, x.shape[3] - 2 * pairs, *x.strides[:3], *to.strides[:3]]
    for angle in (cos, sin):
        words += [angle.strides[0] if angle.shape[0] == x.shape[0] else 0, angle.strides[1]]
    assert len(words) == len(WORDS)
    units = x.shape[0] * x.shape[2]
    call = Call(Key("rotary", (interleaved,)), words, x.size * _ELEMENT_NS, most_threads=units)
    b.add(Native([x, cos, sin], [to], [call]))


def angles_at(b: Builder, caches: tuple[Tensor, Tensor], positions: Tensor) -> tuple[Tensor, Tensor] | None:
    """Rows of caches [positions, turned / 2] at [B, S]: [B, S, turned / 2]. A run with others is refused."""
    if any(len(t.shape) != 2 or t.shape != caches[0].shape for t in caches) or not caches[0].size:
        return None
    if positions.element not in ("int32", "int64") or len(positions.shape) != 2 or not positions.size:
        return None
    size, count = caches[0].shape
    known = positions.value
    if known is not None:
        if known.min() < 0 or known.max() >= size:
            return None
    else:
        # a gather takes negative ones from the end
        below, most = b.constant(np.zeros((), positions.dtype)), b.constant(np.array(size, positions.dtype))
        positions = b.map("where", [b.map("less", [positions, below], np.bool_), most, positions], positions.dtype)
    cos, sin = (b.gathered(t, 0, positions).reshaped((*positions.shape, count)) for t in caches)
    return cos, sin


def _apply(b: Builder, x: Tensor, cos: Tensor, sin: Tensor, heads: int, interleaved: int) -> Tensor | None:
    """x [B, S, H * D] or [B, H, S, D]"""
    reals = ("float32", *half.NARROW)
    if any(t.element not in reals for t in (x, cos, sin)) or not x.size:
        return None
    apart = x if len(x.shape) == 4 else split_heads(b, x, heads)
    if apart is None or not 0 < 2 * cos.shape[2] <= apart.shape[3]:
        return None
    made = b.new(x.dtype, x.shape)
    to = made if len(x.shape) == 4 else split_heads(b, made, heads)
    assert to is not None
    rotated(b, apart, cos, sin, bool(interleaved), to)
    return made


@lowers("RotaryEmbedding")
def _rotary_embedding(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, cos, sin, positions = [*inputs, None][:4]
    a = node.attributes
    if x is None or cos is None or sin is None or len(x.shape) not in (3, 4):
        return None
    heads = a.get("num_heads") or 0
    batch, steps = x.shape[0], x.shape[1] if len(x.shape) == 3 else x.shape[2]
    if len(x.shape) == 3 and (heads < 1 or x.shape[2] % heads):
        return None
    size = x.shape[3] if len(x.shape) == 4 else x.shape[2] // heads
    turned = a.get("rotary_embedding_dim", 0) or size
    if positions is not None:
        found = angles_at(b, (cos, sin), positions)
        if found is None:
            return None
        cos, sin = found
    if turned % 2 or {cos.shape, sin.shape} != {(batch, steps, turned // 2)}:
        return None
    made = _apply(b, x, cos, sin, heads, a.get("interleaved", 0))
    return None if made is None else [made]


@lowers("RotaryEmbedding", domain=_MS)
def _rotary_embedding_ms(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, positions, cos, sin = inputs
    a = node.attributes
    if x is None or positions is None or cos is None or sin is None or len(x.shape) not in (3, 4):
        return None
    heads, turned = a.get("num_heads", 0), a.get("rotary_embedding_dim", 0)
    batch, steps = x.shape[0], x.shape[1] if len(x.shape) == 3 else x.shape[2]
    if len(cos.shape) != 2 or not cos.shape[1]:
        return None
    if len(x.shape) == 3 and not heads:
        if turned or x.shape[2] % (2 * cos.shape[1]):
            return None
        heads = x.shape[2] // (2 * cos.shape[1])
    if len(x.shape) == 3 and (heads < 1 or x.shape[2] % heads):
        return None
    size = x.shape[3] if len(x.shape) == 4 else x.shape[2] // heads
    if 2 * cos.shape[1] != (turned or size):
        return None
    if positions.size == 1 and len(positions.shape) < 2:
        start = positions.view((1, 1), (0, 0))
        start.value = None if positions.value is None else positions.value.reshape(1, 1)
        positions = consecutive(b, start, steps)
    elif positions.shape != (batch, steps):
        return None
    found = angles_at(b, (cos, sin), positions)
    made = None if found is None else _apply(b, x, *found, heads, a.get("interleaved", 0))
    return None if made is None else [made]


def consecutive(b: Builder, start: Tensor, steps: int) -> Tensor:
    """[1, S]: positions from ``start`` [1, 1] on."""
    places = np.arange(steps, dtype=start.dtype)[None]
    if start.value is not None:
        return b.constant(start.value + places)
    return b.map("add", [start, b.constant(places)])
