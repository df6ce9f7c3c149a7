"""Epilogues: an expression on a tile of sums in vector registers, before they are stored.

Input 0 of the expression is the sum. The others are operands of a step, each of a kind below; each result is a tensor
in the layout of the output. A step's words have, from ``first_word`` on: for each operand its address and, where it
is by channel, the elements from one image to the next; then for each result its address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.text import Function, Index, Value
from distort.kernels.compiler.expression import Expression

#: kinds of operands: one number; a number for each channel (and image); as large as the output and in its layout
SCALAR, CHANNEL, FULL = "scalar", "channel", "full"
#: expressions longer than this are a loop over what the tile has stored, not printed for each register
MOST_PRINTED = 8


@dataclass(frozen=True, slots=True)
class Epilogue:
    expression: Expression
    kinds: tuple[str, ...]
    #: by operand, where it is by channel: elements from one image to the next
    operands: tuple[tuple[Value, Value | None], ...]
    results: tuple[Value, ...]

    def apply(
        self,
        f: Function,
        sums: Sequence[Sequence[Value]],
        image: Index,
        channels: Sequence[Index],
        places: Sequence[Index],
        lanes: int,
        spread: int = 1,
    ) -> None:
        """Store a tile.

        ``sums[block][pixel]`` are vectors of ``lanes`` channels; a block's first channel is ``channels[block]``, its
        first pixel is element ``places[block]`` of the output, and the next one lies ``spread`` pixels later.
        """
        step = lanes * spread
        if len(self.expression.body) > MOST_PRINTED and len(self.results) == 1:
            for row, place in zip(sums, places, strict=True):
                for pixel, value in enumerate(row):
                    f.store(value, f.at(self.results[0], f.add(place, pixel * step), "float"))
            for row, place, channel in zip(sums, places, channels, strict=True):
                fixed = self._fixed(f, image, channel, lanes)
                with f.loop(0, len(row) * step, step) as loop:
                    here = f.add(place, loop.index)
                    value = f.load(row[0].type, f.at(self.results[0], here, "float"))
                    self._one(f, value, fixed, here)
            return
        for row, place, channel in zip(sums, places, channels, strict=True):
            fixed = self._fixed(f, image, channel, lanes)
            for pixel, value in enumerate(row):
                self._one(f, value, fixed, f.add(place, pixel * step))

    def _fixed(self, f: Function, image: Index, channel: Index, lanes: int) -> list[Value | None]:
        """Operands that are the same for all pixels of a block."""
        found: list[Value | None] = []
        for kind, (address, stride) in zip(self.kinds, self.operands, strict=True):
            if kind == SCALAR:
                found.append(f.splat(f.load("float", address), lanes))
            elif kind == CHANNEL:
                assert stride is not None
                place = f.add(f.mul(image, stride), channel)
                found.append(f.load(elements.type_of("float32", lanes), f.at(address, place, "float")))
            else:
                found.append(None)
        return found

    def _one(self, f: Function, value: Value, fixed: Sequence[Value | None], place: Index) -> None:
        inputs = [value]
        for known, (address, _) in zip(fixed, self.operands, strict=True):
            inputs.append(known or f.load(value.type, f.at(address, place, "float")))
        for result, address in zip(elements.evaluate(f, self.expression, inputs), self.results, strict=True):
            f.store(result, f.at(address, place, "float"))


def read(f: Function, expression: Expression, kinds: tuple[str, ...], first_word: int) -> Epilogue:
    """The epilogue with what the step's words say."""
    if set(expression.inputs) - {"float32"} or {expression.dtype(r) for r in expression.results} - {"float32"}:
        raise ValueError(f"an epilogue's operands and results are float32, not {expression}")
    if len(kinds) != len(expression.inputs) - 1:
        raise ValueError(f"{len(kinds)} operands for an expression of {len(expression.inputs)} inputs")
    word = first_word
    operands = []
    for kind in kinds:
        address = f.address(word)
        operands.append((address, f.word(word + 1) if kind == CHANNEL else None))
        word += 1 + (kind == CHANNEL)
    results = tuple(f.address(word + n) for n in range(len(expression.results)))
    return Epilogue(expression, kinds, tuple(operands), results)
