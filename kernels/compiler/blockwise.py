"""Operations on tensors in blocks: convolutions, depthwise convolutions and pools, with an epilogue."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from distort.kernels.compiler.codegen.epilogues import CHANNEL, FULL, SCALAR
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.expression import Expression, Instruction
from distort.kernels.compiler.fuse import compose
from distort.kernels.compiler.ir import Address, Buffer, Call, Map, Operation, Place, Scratch, Tensor, Word
from distort.kernels.compiler.keys import Key

#: numbers that stay in the code, since many models have them
_COMMON = frozenset((0, 1, -1, 0.5, 2, 3, 6, float(np.float32(1 / 6)), 1 / 6))
#: instructions to which a number is as good as an operand
_TAKE_ANY = frozenset(("add", "sub", "mul", "maximum", "minimum"))


@dataclass(frozen=True, slots=True)
class Part:
    """A kernel's call without its epilogue. ``words`` in the kernel's order; ``shift``: elements of the output."""

    family: str
    form: tuple[object, ...]  # the key's parameters before those of the epilogue
    words: tuple[Word | Scratch, ...]
    work_ns: float
    units: int
    scratch_nbytes: int = 0  # of a thread
    shift: int = 0


@dataclass(eq=False)
class Blockwise(Operation):
    """``inputs``: what is read, then the operands of ``expression`` after the sum; ``outputs``: one, as it lies.

    ``plan`` makes the kernels' calls for an output with these strides.
    """

    n_read: int
    expression: Expression
    kinds: tuple[str, ...]
    plan: Callable[[Tensor, int], Sequence[Part]]
    #: the output is plain, and lanes are pixels of one channel
    turned: bool = False
    #: parts make some of the images each
    some: bool = False
    #: stands for the sum among operands
    total: Buffer = field(default_factory=lambda: Buffer(0))
    kind: ClassVar[str] = "blockwise"

    def calls(self, target: Target, n_threads: int) -> list[Call]:
        del target
        (out,) = self.outputs
        made = []
        expression, numbers = with_operands(self.expression)
        kinds = (*self.kinds, *[SCALAR] * len(numbers))
        array = np.array(numbers, np.float32)
        kept = Buffer(array.nbytes, Place.CONSTANT, array)
        for part in self.plan(out, n_threads):
            idle = not part.scratch_nbytes
            words: list[Any] = [0 if type(word) is Scratch else word for word in part.words] if idle else [*part.words]
            for tensor, kind in zip(self.inputs[self.n_read :], self.kinds, strict=True):
                words.append(tensor.address(part.shift if kind == FULL else 0))
                if kind == CHANNEL:
                    words.append(tensor.strides[0] if tensor.shape[0] != 1 else 0)
            words += [Address(kept, 4 * i) for i in range(len(numbers))]
            words.append(out.address(part.shift))
            key = Key(part.family, (*part.form, expression, kinds))
            scratch = part.scratch_nbytes * min(n_threads, part.units)
            made.append(Call(key, words, part.work_ns, scratch, part.units))
        return made

    def absorb(self, after: Map, position: int, target: Target) -> Operation | None:
        del position, target
        (out,) = self.outputs
        (result,) = after.outputs
        if self.turned and out.nbytes != out.buffer.nbytes:
            return None  # rows are longer than they look
        if len(after.expression.results) != 1 or {*after.expression.inputs, result.element} != {"float32"}:
            return None
        total = Tensor(out.dtype, out.shape, out.strides, self.total)
        made = compose(
            self.expression, [total, *self.inputs[self.n_read :]], after.expression, after.inputs, out.buffer
        )
        if made is None or not _is_dense_inside(result, out):
            return None
        operands, expression = made
        kinds = list(self.kinds)
        # a result that goes elsewhere may lie otherwise than the operands that were read in step with the one before
        for tensor, known in zip(operands[1:], self.kinds, strict=False):
            if known == FULL and _kind(tensor, result, out) != FULL:
                return None
        for tensor in operands[1 + len(kinds) :]:
            kind = _kind(tensor, result, out)
            if kind is None or (kind == CHANNEL and (self.turned or (self.some and tensor.shape[0] != 1))):
                return None
            kinds.append(kind)
        inputs = [*self.inputs[: self.n_read], *operands[1:]]
        return Blockwise(
            inputs, [result], self.n_read, expression, tuple(kinds), self.plan, self.turned, self.some, self.total
        )


@functools.lru_cache(1024)
def with_operands(expression: Expression) -> tuple[Expression, tuple[float, ...]]:
    """Numbers that a model has learned as operands, last among them: kernels that differ in nothing else are one."""
    n_inputs = len(expression.inputs)
    readers: dict[int, set[str]] = {}
    for instruction in expression.body:
        for operand in instruction.operands:
            readers.setdefault(operand, set()).add(instruction.op)
    learned = [
        place
        for place, instruction in enumerate(expression.body, n_inputs)
        if instruction.op == "constant"
        and instruction.dtype == "float32"
        and instruction.attributes[0] not in _COMMON
        and place not in expression.results
        and readers.get(place, set()) <= _TAKE_ANY
    ]
    number = {old: old for old in range(n_inputs)}
    number |= {old: n_inputs + i for i, old in enumerate(learned)}
    body: list[Instruction] = []
    for place, instruction in enumerate(expression.body, n_inputs):
        if place not in number:
            number[place] = n_inputs + len(learned) + len(body)
            body.append(instruction._replace(operands=tuple(number[o] for o in instruction.operands)))
    numbers = tuple([float(expression.body[place - n_inputs].attributes[0]) for place in learned])
    inputs = (*expression.inputs, *("float32" for _ in learned))
    return Expression(inputs, tuple(body), tuple(number[r] for r in expression.results)), numbers


def _is_dense_inside(result: Tensor, out: Tensor) -> bool:
    """Whether a result goes where kernels can write it: pixels as far from each other as in their own output."""
    if result.shape == out.shape and result.strides == out.strides:
        return True
    if len(result.shape) != len(out.shape):
        return False
    pairs = zip(out.shape, result.shape, out.strides, result.strides, strict=True)
    return all(want == have and (i < 2 or want == 1 or a == b) for i, (want, have, a, b) in enumerate(pairs))


def _kind(tensor: Tensor, result: Tensor, out: Tensor) -> str | None:
    """How an epilogue reads an operand of the output's shape; None where it can't."""
    if len(tensor.shape) != len(result.shape):
        return None
    strides = [s if n != 1 else None for n, s in zip(out.shape, tensor.strides, strict=True)]
    if not any(strides):
        return SCALAR
    lanes = out.shape[-1]
    blocks, *pixels, lane = strides[1:]
    if not any(pixels) and lane == 1 and blocks in (None, lanes):
        return CHANNEL
    if tensor.strides == result.strides:
        return FULL
    same = all(n == 1 or a == b for n, a, b in zip(out.shape, tensor.strides, result.strides, strict=True))
    return FULL if same else None
